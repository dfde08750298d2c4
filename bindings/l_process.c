/* m.sys: other processes: starting one, asking for its end, signals, sleeping. */
#define _GNU_SOURCE
#include "l_mimic.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

/* The strings of the list at index t as a NULL-ended array, on the stack. */
static char **words_of(lua_State *L, int t) {
    lua_Integer n = luaL_len(L, t);
    luaL_argcheck(L, n >= 1 && n < 4096, t, "a list of words expected");
    char **words = mimicl_buffer(L, (size_t)n + 1, sizeof *words);
    for (lua_Integer i = 0; i < n; i++) {
        if (lua_rawgeti(L, t, i + 1) != LUA_TSTRING)
            mimicl_error(L, MIMIC_EINVAL, "m.sys.spawn: word %d is no text", (int)i + 1);
        words[i] = (char *)lua_tostring(L, -1); /* owned by the list */
        lua_pop(L, 1);
    }
    words[n] = NULL;
    return words;
}

/* The environment with the NAME=VALUE texts of the list at t instead of or beside what there is. */
static char **environment(lua_State *L, int t) {
    size_t n = 0, more = lua_istable(L, t) ? (size_t)luaL_len(L, t) : 0;
    while (environ[n])
        n++;
    char **out = mimicl_buffer(L, n + more + 1, sizeof *out);
    memcpy(out, environ, n * sizeof *out);
    for (size_t i = 0; i < more; i++) {
        lua_rawgeti(L, t, (lua_Integer)i + 1);
        char *pair = (char *)luaL_checkstring(L, -1); /* owned by the list */
        size_t name = strcspn(pair, "="), k = 0;
        while (k < n && !(strncmp(out[k], pair, name) == 0 && out[k][name] == '='))
            k++;
        out[k] = pair;
        n += k == n;
        lua_pop(L, 1);
    }
    out[n] = NULL;
    return out;
}

/* Runs in the new process: only calls that are safe after fork. */
static void become(char **argv, char **env, pid_t parent) {
    setpgid(0, 0); /* Ctrl-C of the terminal goes to the parent, which passes it on */
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (getppid() != parent)
        _exit(125);
    signal(SIGINT, SIG_DFL);
    signal(SIGTERM, SIG_DFL);
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    execve(argv[0], argv, env);
    _exit(127);
}

/* m.sys.spawn({path, word, ...} [, {"NAME=VALUE", ...}]) -> pid. The process gets SIGTERM when this
 * one ends without waiting for it. */
static int sys_spawn(lua_State *L) {
    luaL_checktype(L, 1, LUA_TTABLE);
    lua_settop(L, 2);
    char **argv = words_of(L, 1), **env = environment(L, 2);
    pid_t parent = getpid(), pid = fork();
    if (pid == 0)
        become(argv, env, parent);
    if (pid < 0)
        return mimicl_error(L, MIMIC_EIO, "cannot start %s: %s", argv[0], strerror(errno));
    lua_pushinteger(L, pid);
    return 1;
}

/* m.sys.wait(pid [, block]) -> exit code (128 + signal for a killed process), or nil while it runs
 */
static int sys_wait(lua_State *L) {
    pid_t pid = (pid_t)luaL_checkinteger(L, 1);
    int status = 0, flags = lua_toboolean(L, 2) ? 0 : WNOHANG;
    pid_t got = waitpid(pid, &status, flags);
    if (got < 0 && errno != EINTR)
        return mimicl_error(L, MIMIC_EIO, "cannot wait for process %d: %s", (int)pid,
                            strerror(errno));
    if (got <= 0)
        return 0;
    lua_pushinteger(L, WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status));
    return 1;
}

/* m.sys.kill(pid, "INT" | "TERM" | "KILL" | "STOP" | "CONT" | "USR1") -> whether it was there */
static int sys_kill(lua_State *L) {
    static const char *const names[] = {"INT", "TERM", "KILL", "STOP", "CONT", "USR1", NULL};
    static const int numbers[] = {SIGINT, SIGTERM, SIGKILL, SIGSTOP, SIGCONT, SIGUSR1};
    lua_Integer pid = luaL_checkinteger(L, 1);
    luaL_argcheck(L, pid > 1, 1, "the number of a process expected");
    int number = numbers[luaL_checkoption(L, 2, NULL, names)];
    lua_pushboolean(L, kill((pid_t)pid, number) == 0);
    return 1;
}

/* m.sys.sleep(seconds): less when a signal comes */
static int sys_sleep(lua_State *L) {
    double s = luaL_checknumber(L, 1);
    luaL_argcheck(L, s >= 0 && s < 1e6, 1, "seconds expected");
    struct timespec t = {(time_t)s, (long)((s - (double)(time_t)s) * 1e9)};
    nanosleep(&t, NULL);
    return 0;
}

void mimicl_open_process(lua_State *L, int b) {
    static const luaL_Reg functions[] = {{"spawn", sys_spawn},
                                         {"wait", sys_wait},
                                         {"kill", sys_kill},
                                         {"sleep", sys_sleep},
                                         {NULL, NULL}};
    lua_getfield(L, -1, "sys");
    mimicl_functions(L, b, functions);
    lua_pop(L, 1);
}
