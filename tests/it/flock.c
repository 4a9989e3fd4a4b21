/* Simulates a network file system without a lock server; preloaded into the watchdog. Locking fails with the error
   number in FLOCK_ERRNO; without it, every lock is granted. */
#include <errno.h>
#include <stdlib.h>

int flock(int file, int operation)
{
    const char *number = getenv("FLOCK_ERRNO");
    (void)file;
    (void)operation;
    if (!number)
        return 0;
    errno = atoi(number);
    return -1;
}
