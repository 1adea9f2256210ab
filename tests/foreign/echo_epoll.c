/*
 * An echo server that is none of ours: C, one thread, epoll, level- or edge-triggered.
 *
 *     cc -O2 -o /tmp/echo_epoll tests/foreign/echo_epoll.c
 *     SERVER="/tmp/echo_epoll level" cargo test -p m3-level-triggered
 *     SERVER="/tmp/echo_epoll edge" cargo test -p m4-edge-triggered
 *
 * What a client does not take at once is waited for in poll(2), as the third and the fourth milestone do.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { READ_SIZE = 4096, EVENTS = 256 };

static void fail(const char *what)
{
    perror(what);
    exit(1);
}

/* Sends all of it, waiting for the client where it must; false when the client has gone. */
static bool send_all(int client, const char *bytes, size_t length)
{
    while (length > 0) {
        ssize_t sent = send(client, bytes, length, MSG_NOSIGNAL);
        if (sent >= 0) {
            bytes += sent;
            length -= sent;
        } else if (errno == EAGAIN) {
            struct pollfd watched = { .fd = client, .events = POLLOUT };
            poll(&watched, 1, -1);
        } else if (errno != EINTR) {
            return false;
        }
    }
    return true;
}

/* Echoes what one read gives or, told only once of what is there, until nothing is left; false at the end. */
static bool echo(int client, bool until_empty)
{
    char buffer[READ_SIZE];
    do {
        ssize_t received = recv(client, buffer, sizeof buffer, 0);
        if (received < 0 && errno == EAGAIN)
            return true;
        if (received < 0 && errno == EINTR)
            continue;
        if (received <= 0 || !send_all(client, buffer, received))
            return false;
    } while (until_empty);
    return true;
}

static void accept_all(int listener, int epoll, uint32_t mode)
{
    for (;;) {
        int client = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (client < 0) {
            if (errno == EAGAIN)
                return;
            if (errno == EMFILE || errno == ENFILE)
                fail("accept4");
            continue; /* a client that has gone, or a signal */
        }
        struct epoll_event event = { .events = EPOLLIN | mode, .data.fd = client };
        if (epoll_ctl(epoll, EPOLL_CTL_ADD, client, &event) < 0)
            close(client);
    }
}

static int listen_on(int port)
{
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    struct sockaddr_in address = {
        .sin_family = AF_INET,
        .sin_port = htons(port),
        .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
    };
    if (listener < 0 || setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &(int){ 1 }, sizeof(int)) < 0)
        fail("socket");
    if (bind(listener, (struct sockaddr *)&address, sizeof address) < 0)
        fail("bind");
    if (listen(listener, SOMAXCONN) < 0)
        fail("listen");
    return listener;
}

int main(int argc, char **argv)
{
    bool edge = argc == 3 && strcmp(argv[1], "edge") == 0;
    bool level = argc == 3 && strcmp(argv[1], "level") == 0;
    if (!edge && !level) {
        fprintf(stderr, "usage: %s level|edge PORT\n", argv[0]);
        return 2;
    }
    uint32_t mode = edge ? EPOLLET : 0;
    int listener = listen_on(atoi(argv[2]));
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event = { .events = EPOLLIN | mode, .data.fd = listener };
    if (epoll < 0 || epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &event) < 0)
        fail("epoll");
    for (;;) {
        struct epoll_event events[EVENTS];
        int ready = epoll_wait(epoll, events, EVENTS, -1);
        if (ready < 0 && errno != EINTR)
            fail("epoll_wait");
        for (int i = 0; i < ready; i++) {
            if (events[i].data.fd == listener)
                accept_all(listener, epoll, mode);
            else if (!echo(events[i].data.fd, edge))
                close(events[i].data.fd);
        }
    }
}
