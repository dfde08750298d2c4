/* m.sys: what a script needs of the system beside Lua's os and io. Calls that ask return nil and a
 * text when they cannot answer; calls that change something raise. */
#include "l_mimic.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#include "embedded.h"

static int no_answer(lua_State *L, const char *what) {
    int code = errno;
    lua_pushnil(L);
    lua_pushfstring(L, "%s: %s", what, strerror(code));
    return 2;
}

static int failed(lua_State *L, const char *doing, const char *path) {
    return mimicl_error(L, MIMIC_EIO, "cannot %s %s: %s", doing, path, strerror(errno));
}

static int sys_clock(lua_State *L) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    lua_pushnumber(L, (double)t.tv_sec + (double)t.tv_nsec * 1e-9);
    return 1;
}

static int sys_time(lua_State *L) {
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    lua_pushinteger(L, (lua_Integer)t.tv_sec * 1000 + t.tv_nsec / 1000000);
    return 1;
}

/* m.sys.sleep(seconds): returns early when a signal comes */
static int sys_sleep(lua_State *L) {
    lua_Number s = luaL_checknumber(L, 1);
    luaL_argcheck(L, s >= 0 && s < 1e9, 1, "seconds expected");
    struct timespec t = {.tv_sec = (time_t)s, .tv_nsec = (long)((s - (double)(time_t)s) * 1e9)};
    nanosleep(&t, NULL);
    return 0;
}

static int sys_isatty(lua_State *L) {
    lua_pushboolean(L, isatty((int)luaL_optinteger(L, 1, 1)));
    return 1;
}

/* Width of the terminal that stderr or stdout is, or nil. */
static int sys_columns(lua_State *L) {
    struct winsize w = {0};
    if (ioctl(2, TIOCGWINSZ, &w) && ioctl(1, TIOCGWINSZ, &w))
        return 0;
    if (w.ws_col == 0)
        return 0;
    lua_pushinteger(L, w.ws_col);
    return 1;
}

static int sys_pid(lua_State *L) {
    lua_pushinteger(L, getpid());
    return 1;
}

static int sys_hostname(lua_State *L) {
    char name[256] = "";
    gethostname(name, sizeof name - 1);
    lua_pushstring(L, name);
    return 1;
}

static int sys_alive(lua_State *L) {
    lua_Integer pid = luaL_checkinteger(L, 1);
    lua_pushboolean(L, pid > 0 && (kill((pid_t)pid, 0) == 0 || errno == EPERM));
    return 1;
}

/* The value of the first line of a /proc file that starts with `key`; "" of none. */
static void push_proc(lua_State *L, const char *path, const char *key) {
    char line[512], *value = line;
    FILE *f = fopen(path, "r");
    line[0] = '\0';
    while (f && fgets(line, sizeof line, f)) {
        if (strncmp(line, key, strlen(key)) == 0)
            break;
        line[0] = '\0';
    }
    if (f)
        fclose(f);
    if (key[0]) {
        value = strchr(line, ':') ? strchr(line, ':') + 1 : line;
        value += strspn(value, " \t");
    }
    lua_pushlstring(L, value, strcspn(value, "\n"));
}

static int sys_boot_id(lua_State *L) {
    push_proc(L, "/proc/sys/kernel/random/boot_id", "");
    return 1;
}

static int sys_cpu(lua_State *L) {
    push_proc(L, "/proc/cpuinfo", "model name");
    if (lua_rawlen(L, -1) == 0)
        lua_pushliteral(L, "unknown processor");
    return 1;
}

/* Largest resident size of the process so far, in bytes. */
static int sys_rss(lua_State *L) {
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    lua_pushinteger(L, (lua_Integer)u.ru_maxrss * 1024);
    return 1;
}

static int sys_free_bytes(lua_State *L) {
    const char *path = luaL_checkstring(L, 1);
    struct statvfs v;
    if (statvfs(path, &v))
        return no_answer(L, path);
    lua_pushinteger(L, (lua_Integer)(v.f_bavail * v.f_frsize));
    return 1;
}

static int sys_mkdirs(lua_State *L) {
    const char *path = luaL_checkstring(L, 1);
    char *part = strcpy(mimicl_buffer(L, strlen(path) + 1, 1), path);
    struct stat st;
    for (char *p = part + (part[0] == '/');; p++) {
        char c = *p;
        if (c != '/' && c != '\0')
            continue;
        *p = '\0';
        if (part[0] && mkdir(part, 0777) && errno != EEXIST && errno != EISDIR)
            return failed(L, "make the folder", part);
        *p = c;
        if (c == '\0')
            break;
    }
    if (stat(path, &st) == 0 && !S_ISDIR(st.st_mode))
        errno = ENOTDIR;
    else if (stat(path, &st) == 0)
        errno = 0;
    if (errno)
        return failed(L, "make the folder", path);
    lua_pushboolean(L, 1);
    return 1;
}

static int sys_realpath(lua_State *L) {
    const char *path = luaL_checkstring(L, 1);
    void **block = mimicl_malloced(L);
    *block = realpath(path, NULL);
    if (!*block)
        return no_answer(L, path);
    lua_pushstring(L, *block);
    return 1;
}

static int sys_random_hex(lua_State *L) {
    uint8_t bytes[256];
    lua_Integer n = luaL_checkinteger(L, 1);
    luaL_argcheck(L, n >= 1 && n <= 256, 1, "1 to 256 bytes expected");
    if (getrandom(bytes, (size_t)n, 0) != n)
        return failed(L, "read", "random numbers of the system");
    mimicl_push_hex(L, bytes, (size_t)n);
    return 1;
}

static int sys_read_file(lua_State *L) {
    const char *path = luaL_checkstring(L, 1);
    luaL_Buffer out;
    FILE *f = fopen(path, "rb");
    if (!f)
        return no_answer(L, path);
    /* Lua may raise for want of memory while f is open: the size is known before, one buffer is
     * made */
    struct stat st;
    bool known = fstat(fileno(f), &st) == 0 && S_ISREG(st.st_mode) && st.st_size > 0;
    fclose(f);
    size_t room = known ? (size_t)st.st_size : 1 << 16, used = 0, got;
    char *p = luaL_buffinitsize(L, &out, room);
    f = fopen(path, "rb");
    if (!f)
        return no_answer(L, path);
    while (used < room && (got = fread(p + used, 1, room - used, f)) > 0)
        used += got;
    int bad = ferror(f);
    fclose(f);
    if (bad)
        return no_answer(L, path);
    luaL_pushresultsize(&out, used);
    return 1;
}

/* Writes all bytes and syncs what can be; false with errno. */
static bool write_all(int fd, const char *bytes, size_t size) {
    while (size > 0) {
        ssize_t n = write(fd, bytes, size);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return false;
        bytes += n;
        size -= (size_t)n;
    }
    return fsync(fd) == 0 || errno == EINVAL; /* a pipe or a device */
}

/* m.sys.write_file_atomic(path, bytes): all of it or nothing, also when the power fails. What a
 * link leads to is replaced, not the link; a device or a pipe is written to. */
static int sys_write_file_atomic(lua_State *L) {
    size_t size;
    struct stat st;
    char target[PATH_MAX];
    const char *path = luaL_checkstring(L, 1), *bytes = luaL_checklstring(L, 2, &size);
    bool there = stat(path, &st) == 0, direct = there && !S_ISREG(st.st_mode);
    const char *to = there && !direct && realpath(path, target) ? target : path;
    lua_pushfstring(L, direct ? "%s" : "%s.%d.tmp", to, (int)getpid());
    const char *tmp = lua_tostring(L, -1);
    int fd = open(tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (fd < 0)
        return failed(L, "write", path);
    bool ok = write_all(fd, bytes, size);
    ok = close(fd) == 0 && ok;
    if (direct ? !ok : !ok || rename(tmp, to)) {
        int code = errno;
        if (!direct)
            unlink(tmp);
        errno = code;
        return failed(L, "write", path);
    }
    lua_pushboolean(L, 1);
    return 1;
}

/* m.sys.script_source("mimic.vit" or "results/schema.sql") -> embedded text or nil */
static int sys_script_source(lua_State *L) {
    const char *name = luaL_checkstring(L, 1);
    for (const mimic_embedded *e = mimic_embedded_files; e->name; e++) {
        if (strcmp(e->name, name) == 0) {
            lua_pushlstring(L, e->text, e->size);
            return 1;
        }
    }
    return 0;
}

static int sys_setenv(lua_State *L) {
    const char *name = luaL_checkstring(L, 1), *value = luaL_optstring(L, 2, NULL);
    if (value ? setenv(name, value, 1) : unsetenv(name))
        return failed(L, "set the environment variable", name);
    return 0;
}

/* --- file locks --------------------------------------------------------------------- */

typedef struct lock {
    int fd_plus_1; /* 0: not held */
} lock;

/* m.sys.flock(path [, nonblock]) -> handle, held until closed or the process ends; nil when another
 * has it */
static int sys_flock(lua_State *L) {
    const char *path = luaL_checkstring(L, 1);
    int mode = LOCK_EX | (lua_toboolean(L, 2) ? LOCK_NB : 0), rc;
    lock *k = mimicl_new(L, MIMICL_LOCK, sizeof *k, 0);
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (fd < 0)
        return failed(L, "open", path);
    k->fd_plus_1 = fd + 1;
    do
        rc = flock(fd, mode);
    while (rc && errno == EINTR);
    if (rc && errno == EWOULDBLOCK) {
        close(fd);
        k->fd_plus_1 = 0;
        return 0;
    }
    if (rc)
        return failed(L, "lock", path);
    return 1;
}

static int lock_gc(lua_State *L) {
    lock *k = lua_touserdata(L, 1);
    if (k->fd_plus_1)
        close(k->fd_plus_1 - 1);
    k->fd_plus_1 = 0;
    return 0;
}

static int lock_close(lua_State *L) {
    mimicl_check(L, 1, MIMICL_LOCK);
    return lock_gc(L);
}

void mimicl_open_sys(lua_State *L, int b) {
    static const luaL_Reg functions[] = {{"clock", sys_clock},
                                         {"time", sys_time},
                                         {"sleep", sys_sleep},
                                         {"isatty", sys_isatty},
                                         {"columns", sys_columns},
                                         {"pid", sys_pid},
                                         {"hostname", sys_hostname},
                                         {"boot_id", sys_boot_id},
                                         {"alive", sys_alive},
                                         {"mkdirs", sys_mkdirs},
                                         {"realpath", sys_realpath},
                                         {"random_hex", sys_random_hex},
                                         {"cpu", sys_cpu},
                                         {"rss", sys_rss},
                                         {"free_bytes", sys_free_bytes},
                                         {"read_file", sys_read_file},
                                         {"write_file_atomic", sys_write_file_atomic},
                                         {"script_source", sys_script_source},
                                         {"setenv", sys_setenv},
                                         {"flock", sys_flock},
                                         {NULL, NULL}};
    static const luaL_Reg lock_methods[] = {{"close", lock_close}, {NULL, NULL}};
    static const luaL_Reg lock_meta[] = {{"__gc", lock_gc}, {"__close", lock_gc}, {NULL, NULL}};
    mimicl_class(L, b, MIMICL_LOCK, "mimic.lock", lock_methods, lock_meta);
    lua_newtable(L);
    mimicl_functions(L, b, functions);
    lua_setfield(L, -2, "sys");
}
