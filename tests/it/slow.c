/* A disk on which each fsync(2) takes as many milliseconds as DISK_MS says; preloaded into the watchdog.
   Each adds a line to the file DISK_TAPE, where there is one. */
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
