/* The `mimic` command: runs Lua files (FILE.lua ARGS), code (-e), a prompt (-i); every other first
 * word goes to the commands in lua/mimic/cli.lua. Here alone signals are handled. */
#include "l_mimic.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { FAILED = 1, USAGE = 2, STOPPED = 130, GRACE = 3 /* seconds */ };

/* What a signal handler can reach: the count, and the state to stop. */
static volatile sig_atomic_t interrupts;
static volatile sig_atomic_t polled; /* the script asks m.interrupted() and stops by itself */
static lua_State *volatile running;

static void stop(lua_State *L, lua_Debug *ar) {
    (void)ar;
    alarm(0);
    lua_sethook(L, NULL, 0, 0);
    luaL_error(L, "interrupted");
}

/* The script did not come back to Lua in time: it waits for something long. */
static void give_up(int signal_number) {
    static const char text[] = "mimic: interrupted\n";
    (void)signal_number;
    (void)!write(STDERR_FILENO, text, sizeof text - 1);
    _exit(STOPPED);
}

/* The first signal asks a script that polls to finish its step; otherwise, and the second time, an
 * error is raised at the next Lua instruction, or the program ends when there is none within GRACE.
 * After that the system's own action holds. */
static void on_signal(int signal_number) {
    interrupts++;
    if (interrupts > 1 || !polled) {
        mimicl_stop_reading = 1;
        signal(signal_number, SIG_DFL);
        signal(SIGALRM, give_up);
        alarm(GRACE);
        if (running)
            lua_sethook(running, stop, LUA_MASKCALL | LUA_MASKRET | LUA_MASKLINE | LUA_MASKCOUNT,
                        1);
    }
}

static int interrupted(lua_State *L) {
    polled = 1;
    lua_pushinteger(L, interrupts);
    return 1;
}

static void complain(lua_State *L) {
    const char *text = luaL_tolstring(L, -1, NULL);
    fprintf(stderr, "mimic: %s\n", text);
    lua_pop(L, 2);
}

/* Sets the global `arg`: arg[0] is argv[script], arguments follow. */
static void set_arg(lua_State *L, int argc, char **argv, int script) {
    lua_createtable(L, argc, 2);
    for (int i = 0; i < argc; i++) {
        lua_pushstring(L, argv[i]);
        lua_rawseti(L, -2, i - script);
    }
    lua_setglobal(L, "arg");
}

/* Calls the chunk on top with the words after argv[script]. */
static int call_script(lua_State *L, int argc, char **argv, int script) {
    int n = argc - script - 1;
    set_arg(L, argc, argv, script);
    luaL_checkstack(L, n + 4, "too many arguments");
    for (int i = script + 1; i < argc; i++)
        lua_pushstring(L, argv[i]);
    return mimicl_call(L, n, 0);
}

/* --- the prompt --------------------------------------------------------------------- */

static bool incomplete(lua_State *L, int rc) {
    const char *text = rc == LUA_ERRSYNTAX ? lua_tostring(L, -1) : NULL;
    size_t n = text ? strlen(text) : 0;
    return n >= 5 && strcmp(text + n - 5, "<eof>") == 0;
}

/* One line without its end, or false at the end of the input. */
static bool read_line(lua_State *L, const char *prompt) {
    char part[512];
    luaL_Buffer line;
    bool any = false;
    fputs(prompt, stdout);
    fflush(stdout);
    luaL_buffinit(L, &line);
    while (fgets(part, sizeof part, stdin)) {
        size_t n = strcspn(part, "\n");
        luaL_addlstring(&line, part, n);
        any = true;
        if (part[n] == '\n')
            break;
    }
    luaL_pushresult(&line);
    if (!any)
        lua_pop(L, 1);
    return any;
}

/* Reads a chunk, as an expression if it is one; leaves it or the error. */
static int read_chunk(lua_State *L, bool *end) {
    *end = !read_line(L, "> ");
    if (*end)
        return LUA_OK;
    lua_pushfstring(L, "return %s", lua_tostring(L, -1));
    int rc = luaL_loadbuffer(L, lua_tostring(L, -1), lua_rawlen(L, -1), "=stdin");
    lua_remove(L, -2);
    while (rc != LUA_OK) {
        lua_pop(L, 1);
        rc = luaL_loadbuffer(L, lua_tostring(L, -1), lua_rawlen(L, -1), "=stdin");
        if (!incomplete(L, rc) || !read_line(L, ">> "))
            break;
        lua_remove(L, -2);
        lua_pushliteral(L, "\n");
        lua_insert(L, -2);
        lua_concat(L, 3);
        lua_pushnil(L);
    }
    lua_remove(L, -2);
    return rc;
}

static void prompt(lua_State *L) {
    bool end = false;
    lua_settop(L, 0);
    lua_getglobal(L, "require");
    lua_pushliteral(L, "mimic");
    lua_call(L, 1, 1);
    lua_setglobal(L, "m");
    for (;;) {
        lua_settop(L, 0);
        int rc = read_chunk(L, &end);
        if (end)
            break;
        if (rc == LUA_OK)
            rc = mimicl_call(L, 0, LUA_MULTRET);
        if (rc == LUA_OK && lua_gettop(L) > 0) {
            lua_getglobal(L, "print");
            lua_insert(L, 1);
            rc = lua_pcall(L, lua_gettop(L) - 1, 0, 0);
        }
        if (rc != LUA_OK)
            complain(L);
    }
    putchar('\n');
}

/* --- what to run -------------------------------------------------------------------- */

static bool is_script(const char *word) {
    size_t n = strlen(word);
    return strcmp(word, "-") == 0 || (n > 4 && strcmp(word + n - 4, ".lua") == 0);
}

/* Gives all words to require "mimic.cli".main(arg), whose result is the exit code. */
static int run_command(lua_State *L, int argc, char **argv, int *code) {
    set_arg(L, argc, argv, 0);
    if (luaL_loadstring(L, "return require('mimic.cli').main(arg)") != LUA_OK)
        return LUA_ERRSYNTAX;
    int rc = mimicl_call(L, 0, 1);
    if (rc == LUA_OK) {
        *code = lua_isboolean(L, -1) ? !lua_toboolean(L, -1) : (int)lua_tointeger(L, -1);
        lua_pop(L, 1);
    }
    return rc;
}

/* Whether a run of the script's experiments failed: it is said on the screen and by the exit code.
 */
static bool some_run_failed(lua_State *L) {
    bool failed = luaL_dostring(L, "local e = package.loaded['mimic.experiment']\n"
                                   "return e ~= nil and #e.options.failed > 0") == LUA_OK &&
                  lua_toboolean(L, -1);
    lua_settop(L, 0);
    return failed;
}

typedef struct words {
    int argc;
    char **argv;
    int code;
} words;

static int run_protected(lua_State *L) {
    words *w = lua_touserdata(L, 1);
    char **argv = w->argv;
    const char *first = w->argc > 1 ? argv[1] : "";
    int rc;
    mimicl_open_libraries(L);
    luaopen_mimic(L);
    w->code = 0;
    lua_pushcfunction(L, interrupted);
    lua_setfield(L, -2, "interrupted");
    lua_settop(L, 0);
    if (is_script(first)) {
        rc = luaL_loadfilex(L, strcmp(first, "-") == 0 ? NULL : first, NULL);
        if (rc == LUA_OK)
            rc = call_script(L, w->argc, argv, 1);
        if (rc == LUA_OK && some_run_failed(L))
            w->code = FAILED;
    } else if (strcmp(first, "-e") == 0 && w->argc > 2) {
        rc = luaL_loadbufferx(L, argv[2], strlen(argv[2]), "=(command line)", "t");
        if (rc == LUA_OK)
            rc = call_script(L, w->argc, argv, 2);
    } else if (strcmp(first, "-i") == 0) {
        set_arg(L, w->argc, argv, 1);
        prompt(L);
        rc = LUA_OK;
    } else {
        rc = run_command(L, w->argc, argv, &w->code);
    }
    if (rc != LUA_OK) {
        complain(L);
        w->code = interrupts ? STOPPED : FAILED;
    }
    return 0;
}

/* What was printed is all there, or the program did not go well. */
static int check_output(int code) {
    errno = 0;
    if (fflush(stdout) == 0 && !ferror(stdout))
        return code;
    fprintf(stderr, "mimic: standard output: %s; what was printed is not whole\n",
            errno ? strerror(errno) : "a write failed");
    return code ? code : FAILED;
}

int main(int argc, char **argv) {
    words w = {argc, argv, USAGE}; /* until mimic is open: its environment is at fault */
    lua_State *L = luaL_newstate();
    if (!L) {
        fputs("mimic: no memory for a Lua state\n", stderr);
        return FAILED;
    }
    running = L;
    signal(SIGXFSZ, SIG_IGN); /* a file at its limit is an error to report, as a full disk is */
    signal(SIGINT, on_signal);
    signal(SIGTERM, on_signal);
    signal(SIGUSR1, on_signal); /* Slurm, some time before the job's end */
    lua_pushcfunction(L, run_protected);
    lua_pushlightuserdata(L, &w);
    if (lua_pcall(L, 1, 0, 0) != LUA_OK) {
        complain(L);
        w.code = interrupts ? STOPPED : w.code ? w.code : FAILED;
    }
    running = NULL;
    lua_close(L);
    return check_output(w.code);
}
