/* Locks that are worth nothing, as on a network drive without a lock server; preloaded into the watchdog. They fail
   with the number in FLOCK_ERRNO, and without one everybody gets what he asks for. */
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
