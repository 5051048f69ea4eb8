/* What a program does to the files of one directory, in order, for the test of power loss.
 *
 * Loaded with LD_PRELOAD. RECORD_DIR is the directory, RECORD_TRACE where to write. A record is a letter, three
 * numbers of 64 bits (file, offset, length of what follows), and bytes: a path, two paths or what is written.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#define FILES 4096
#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int trace = -1;
/* Inode of what is open, 0 for what is elsewhere, 1 for the directory. */
static uint64_t inode[FILES];

static void record(char kind, uint64_t file, uint64_t offset, const void *data, uint64_t len)
{
    char head[25] = {kind};
    memcpy(head + 1, &file, 8);
    memcpy(head + 9, &offset, 8);
    memcpy(head + 17, &len, 8);
    struct iovec parts[2] = {{head, sizeof head}, {(void *)data, len}};
    if (writev(trace, parts, 2) != (ssize_t)(sizeof head + len))
        abort();
}

static int start(void)
{
    const char *path = getenv("RECORD_TRACE");
    if (trace < 0 && path)
        trace = REAL(open)(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    return trace >= 0;
}

/* The path below the directory; "" for the directory itself. */
static const char *below(const char *path)
{
    const char *dir = getenv("RECORD_DIR");
    size_t len = dir ? strlen(dir) : 0;
    if (!len || strncmp(path, dir, len))
        return NULL;
    return path[len] == '/' ? path + len + 1 : path[len] ? NULL : "";
}

static uint64_t file(int fd)
{
    return fd >= 0 && fd < FILES ? inode[fd] : 0;
}

static int opened(int fd, const char *path, int flags)
{
    struct stat st;
    const char *name = below(path);
    if (fd < 0 || fd >= FILES)
        return fd;
    inode[fd] = 0;
    if (!name || !start() || fstat(fd, &st) < 0)
        return fd;
    inode[fd] = S_ISDIR(st.st_mode) ? 1 : st.st_ino;
    if (inode[fd] > 1) {
        record('O', st.st_ino, 0, name, strlen(name));
        if (flags & O_TRUNC)
            record('T', st.st_ino, 0, NULL, 0);
    }
    return fd;
}

#define OPEN(name)                                                        \
    int name(const char *path, int flags, ...)                            \
    {                                                                     \
        va_list ap;                                                       \
        va_start(ap, flags);                                              \
        int mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(ap, int) : 0;   \
        va_end(ap);                                                       \
        pthread_mutex_lock(&lock);                                        \
        int fd = opened(REAL(name)(path, flags, mode), path, flags);      \
        pthread_mutex_unlock(&lock);                                      \
        return fd;                                                        \
    }
OPEN(open)
OPEN(open64)

#define OPENAT(name)                                                      \
    int name(int at, const char *path, int flags, ...)                    \
    {                                                                     \
        va_list ap;                                                       \
        va_start(ap, flags);                                              \
        int mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(ap, int) : 0;   \
        va_end(ap);                                                       \
        pthread_mutex_lock(&lock);                                        \
        int fd = opened(REAL(name)(at, path, flags, mode), path, flags);  \
        pthread_mutex_unlock(&lock);                                      \
        return fd;                                                        \
    }
OPENAT(openat)
OPENAT(openat64)

#define PWRITE(name, offset_t)                                                    \
    ssize_t name(int fd, const void *data, size_t len, offset_t offset)           \
    {                                                                             \
        pthread_mutex_lock(&lock);                                                \
        ssize_t done = REAL(name)(fd, data, len, offset);                         \
        if (done > 0 && file(fd) > 1)                                             \
            record('W', file(fd), offset, data, done);                            \
        pthread_mutex_unlock(&lock);                                              \
        return done;                                                              \
    }
PWRITE(pwrite, off_t)
PWRITE(pwrite64, off64_t)

ssize_t write(int fd, const void *data, size_t len)
{
    pthread_mutex_lock(&lock);
    ssize_t done = REAL(write)(fd, data, len);
    if (done > 0 && file(fd) > 1)
        record('W', file(fd), lseek(fd, 0, SEEK_CUR) - done, data, done);
    pthread_mutex_unlock(&lock);
    return done;
}

#define TRUNCATE(name, offset_t)                          \
    int name(int fd, offset_t size)                       \
    {                                                     \
        pthread_mutex_lock(&lock);                        \
        int done = REAL(name)(fd, size);                  \
        if (done == 0 && file(fd) > 1)                    \
            record('T', file(fd), size, NULL, 0);         \
        pthread_mutex_unlock(&lock);                      \
        return done;                                      \
    }
TRUNCATE(ftruncate, off_t)
TRUNCATE(ftruncate64, off64_t)

/* The record comes after the call: what it promises holds from then on. */
#define SYNC(name)                                        \
    int name(int fd)                                      \
    {                                                     \
        int done = REAL(name)(fd);                        \
        pthread_mutex_lock(&lock);                        \
        if (done == 0 && file(fd))                        \
            record('S', file(fd), 0, NULL, 0);            \
        pthread_mutex_unlock(&lock);                      \
        return done;                                      \
    }
SYNC(fsync)
SYNC(fdatasync)

int syncfs(int fd)
{
    int done = REAL(syncfs)(fd);
    pthread_mutex_lock(&lock);
    if (done == 0 && file(fd))
        record('A', 0, 0, NULL, 0);
    pthread_mutex_unlock(&lock);
    return done;
}

int rename(const char *from, const char *to)
{
    char both[2 * PATH_MAX];
    pthread_mutex_lock(&lock);
    int done = REAL(rename)(from, to);
    const char *a = below(from), *b = below(to);
    if (done == 0 && a && b && start()) {
        size_t len = strlen(a) + 1;
        memcpy(both, a, len);
        memcpy(both + len, b, strlen(b));
        record('R', 0, 0, both, len + strlen(b));
    }
    pthread_mutex_unlock(&lock);
    return done;
}

int unlink(const char *path)
{
    pthread_mutex_lock(&lock);
    int done = REAL(unlink)(path);
    const char *name = below(path);
    if (done == 0 && name && start())
        record('U', 0, 0, name, strlen(name));
    pthread_mutex_unlock(&lock);
    return done;
}

int close(int fd)
{
    pthread_mutex_lock(&lock);
    if (fd >= 0 && fd < FILES)
        inode[fd] = 0;
    int done = REAL(close)(fd);
    pthread_mutex_unlock(&lock);
    return done;
}
