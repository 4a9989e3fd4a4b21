/* Simulates a file server that does not respond: access to a path below $DEAD, or executing it, blocks while the file
 * $DEAD_WHILE exists. Preloaded into the watchdog. */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static void wait_for(const char *path)
{
    const char *dead = getenv("DEAD"), *file = getenv("DEAD_WHILE");
    if (!dead || !file || !path || strncmp(path, dead, strlen(dead)) != 0)
        return;
    while (access(file, F_OK) == 0)
        usleep(20000);
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

int open64(const char *path, int flags, ...)
{
    va_list rest;
    va_start(rest, flags);
    mode_t mode = va_arg(rest, mode_t);
    va_end(rest);
    wait_for(path);
    return REAL(open64)(path, flags, mode);
}

int statx(int folder, const char *restrict path, int flags, unsigned mask, struct statx *restrict found)
{
    wait_for(path);
    return REAL(statx)(folder, path, flags, mask, found);
}

DIR *opendir(const char *path)
{
    wait_for(path);
    return REAL(opendir)(path);
}

int posix_spawnp(pid_t *pid, const char *path, const posix_spawn_file_actions_t *actions, const posix_spawnattr_t *how,
                 char *const words[], char *const variables[])
{
    wait_for(path);
    return REAL(posix_spawnp)(pid, path, actions, how, words, variables);
}
