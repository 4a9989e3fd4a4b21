/* The minimum cost of an HTTP probe: in each period, connect, send a GET, receive until the end, close.
   Usage: bare PORT PATH MILLISECONDS. It exits when a connection fails. */
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

int main(int argc, char **argv) {
    char request[256], answer[4096];
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct timespec due;
    if (argc != 4)
        return 2;
    address.sin_port = htons(atoi(argv[1]));
    long period = atol(argv[3]);
    int length = snprintf(request, sizeof request, "GET %s HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", argv[2]);
    for (clock_gettime(CLOCK_MONOTONIC, &due);; clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &due, NULL)) {
        int wire = socket(AF_INET, SOCK_STREAM, 0);
        if (connect(wire, (struct sockaddr *)&address, sizeof address) || send(wire, request, length, 0) != length)
            return 1;
        while (recv(wire, answer, sizeof answer, 0) > 0) {
        }
        close(wire);
        due.tv_nsec += period % 1000 * 1000000;
        due.tv_sec += period / 1000 + due.tv_nsec / 1000000000;
        due.tv_nsec %= 1000000000;
    }
}
