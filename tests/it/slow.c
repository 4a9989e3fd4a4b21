/* Simulates a disk on which each fsync(2) takes DISK_MS milliseconds; preloaded into the watchdog.
   If DISK_TAPE is set, each call appends a line to that file. */
#include <fcntl.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

int fsync(int file)
{
    const char *tape = getenv("DISK_TAPE");
    long length = atol(getenv("DISK_MS"));
    struct timespec pause = {length / 1000, length % 1000 * 1000000};
    (void)file;
    nanosleep(&pause, NULL);
    if (tape) {
        int to = open(tape, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
        if (to < 0 || write(to, "fsync\n", 6) != 6)
            abort();
        close(to);
    }
    return 0;
}
