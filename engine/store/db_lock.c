/* The lock file of a results database. Fair between processes: who waits holds the turnstile, so
 * that a process which writes all the time cannot take the lock again before. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <time.h>
#include <unistd.h>

#include "store/db_impl.h"

enum { NEXT_US = 50 }; /* how often the next in turn looks whether the lock is free */

int mimic_lock_open(mimic_lock *l, const char *lock_path) {
    l->depth = 0;
    l->patience_ms = 10000;
    l->fd = open(lock_path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    return l->fd < 0 ? errno : 0;
}

void mimic_lock_close(mimic_lock *l) {
    if (l->fd >= 0)
        close(l->fd); /* gives up both locks */
    l->fd = -1;
}

static bool try_turnstile(mimic_lock *l) {
    struct flock byte = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 0, .l_len = 1};
    return fcntl(l->fd, F_OFD_SETLK, &byte) == 0;
}

static void leave_turnstile(mimic_lock *l) {
    struct flock byte = {.l_type = F_UNLCK, .l_whence = SEEK_SET, .l_start = 0, .l_len = 1};
    fcntl(l->fd, F_OFD_SETLK, &byte);
}

static int64_t now_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

bool mimic_lock_take(mimic_lock *l, char err[MIMIC_DB_TEXT]) {
    if (l->depth > 0) {
        l->depth++;
        return true;
    }
    int64_t start = 0;
    bool turn = false;
    for (long pause_us = 50;; pause_us = pause_us < 1000 ? pause_us * 2 : 1000) {
        turn = turn || try_turnstile(l);
        if (turn && flock(l->fd, LOCK_EX | LOCK_NB) == 0)
            break;
        if (errno != EWOULDBLOCK && errno != EAGAIN && errno != EACCES && errno != EINTR) {
            snprintf(err, MIMIC_DB_TEXT, "cannot lock the lock file: %s", strerror(errno));
            goto fail;
        }
        if (start == 0)
            start = now_ms();
        else if (now_ms() - start >= l->patience_ms) {
            char pid[16] = "";
            ssize_t n = pread(l->fd, pid, sizeof pid - 1, 0);
            pid[n > 0 ? n : 0] = 0;
            snprintf(err, MIMIC_DB_TEXT, "locked for %g s by another writer (process %ld)",
                     l->patience_ms / 1000.0, strtol(pid, NULL, 10));
            goto fail;
        }
        /* The next in turn looks often at first: a commit takes a millisecond, and while it sleeps
         * nobody has the lock. The others need only be there when it has gone. */
        bool soon = turn && now_ms() - start < 50;
        nanosleep(&(struct timespec){0, (soon ? NEXT_US : pause_us) * 1000}, NULL);
    }
    leave_turnstile(l);
    l->depth = 1;
    char pid[16];
    int n = snprintf(pid, sizeof pid, "%-11ld\n", (long)getpid());
    if (pwrite(l->fd, pid, (size_t)n, 0) < 0)
        return true; /* only tells others who we are */
    return true;
fail:
    if (turn)
        leave_turnstile(l);
    return false;
}

void mimic_lock_give(mimic_lock *l) {
    if (l->depth > 0 && --l->depth == 0)
        flock(l->fd, LOCK_UN);
}

const char *mimic_network_fs(unsigned long f_type) {
    static const struct {
        unsigned long type;
        const char *name;
    } known[] = {{0x6969, "NFS"},        {0x517b, "SMB"},        {0xff534d42, "SMB (CIFS)"},
                 {0xfe534d42, "SMB2"},   {0x0bd00bd0, "Lustre"}, {0x47504653, "GPFS"},
                 {0x19830326, "BeeGFS"}, {0x00c36400, "Ceph"},   {0x5346414f, "AFS"},
                 {0x6b414653, "AFS"},    {0x73757245, "Coda"},   {0x01021997, "9p"},
                 {0x7461636f, "OCFS2"},  {0xaad7aaea, "PanFS"},  {0x013111a8, "GPFS (IBM)"}};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (known[i].type == (f_type & 0xffffffffu))
            return known[i].name;
    return NULL;
}
