/* A disk on which each fsync(2) takes two seconds; preloaded into the watchdog. */
#include <unistd.h>

int fsync(int file)
{
    (void)file;
    sleep(2);
    return 0;
}
