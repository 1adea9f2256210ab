/* A peer for the bench: an echo server on libuv, written as libuv's own guide teaches.
 *
 * A buffer for every read and a request for every write, both freed when the write is done. With
 * -DTRY_WRITE it takes the shorter way that libuv offers besides: one shared buffer for reading, and
 * uv_try_write first, so that only what would block is copied and queued.
 *
 * Compiled by the bench where `cc` and libuv1-dev are there. Usage: peer-libuv [PORT], 0 for a free one.
 */
#include <arpa/inet.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>

struct write {
    uv_write_t request;
    uv_buf_t bytes;
};

static void check(int status, const char *what) {
    if (status < 0) {
        fprintf(stderr, "peer-libuv: cannot %s: %s\n", what, uv_strerror(status));
        exit(1);
    }
}

static void on_closed(uv_handle_t *client) {
    free(client);
}

static void on_written(uv_write_t *request, int status) {
    struct write *write = (struct write *)request;
    if (status < 0 && !uv_is_closing((uv_handle_t *)request->handle))
        uv_close((uv_handle_t *)request->handle, on_closed);
    free(write->bytes.base);
    free(write);
}

static void queue_write(uv_stream_t *client, char *bytes, size_t length) {
    struct write *write = malloc(sizeof *write);
    write->bytes = uv_buf_init(bytes, length);
    if (uv_write(&write->request, client, &write->bytes, 1, on_written) < 0) {
        free(bytes);
        free(write);
    }
}

#ifdef TRY_WRITE

static void on_buffer_wanted(uv_handle_t *client, size_t suggested, uv_buf_t *buffer) {
    static char shared[64 * 1024];
    (void)client, (void)suggested;
    *buffer = uv_buf_init(shared, sizeof shared);
}

static void echo(uv_stream_t *client, const uv_buf_t *buffer, size_t length) {
    uv_buf_t bytes = uv_buf_init(buffer->base, length);
    int sent = uv_try_write(client, &bytes, 1);
    if (sent < 0)
        sent = 0; /* UV_EAGAIN, or an error that the queued write will meet again */
    if ((size_t)sent < length) {
        char *rest = malloc(length - sent);
        memcpy(rest, buffer->base + sent, length - sent);
        queue_write(client, rest, length - sent);
    }
}

static void give_back(const uv_buf_t *buffer) {
    (void)buffer;
}

#else

static void on_buffer_wanted(uv_handle_t *client, size_t suggested, uv_buf_t *buffer) {
    (void)client;
    *buffer = uv_buf_init(malloc(suggested), suggested);
}

static void echo(uv_stream_t *client, const uv_buf_t *buffer, size_t length) {
    queue_write(client, buffer->base, length);
}

static void give_back(const uv_buf_t *buffer) {
    free(buffer->base);
}

#endif

static void on_read(uv_stream_t *client, ssize_t received, const uv_buf_t *buffer) {
    if (received > 0) {
        echo(client, buffer, received);
        return;
    }
    if (received < 0 && !uv_is_closing((uv_handle_t *)client))
        uv_close((uv_handle_t *)client, on_closed);
    give_back(buffer);
}

static void on_connection(uv_stream_t *listener, int status) {
    if (status < 0)
        return;
    uv_tcp_t *client = malloc(sizeof *client);
    uv_tcp_init(listener->loop, client);
    if (uv_accept(listener, (uv_stream_t *)client) < 0) {
        uv_close((uv_handle_t *)client, on_closed);
        return;
    }
    /* What m6 and m7 do too: nobody is slowed down by Nagle's algorithm. */
    uv_tcp_nodelay(client, 1);
    uv_read_start((uv_stream_t *)client, on_buffer_wanted, on_read);
}

int main(int argc, char **argv) {
    uv_loop_t *loop = uv_default_loop();
    uv_tcp_t listener;
    struct sockaddr_in address;
    int length = sizeof address;

    /* libuv leaves it to the program: a client that has gone is an error to handle, not a signal to die of. */
    signal(SIGPIPE, SIG_IGN);
    check(uv_ip4_addr("127.0.0.1", argc > 1 ? atoi(argv[1]) : 9000, &address), "use that port");
    uv_tcp_init(loop, &listener);
    check(uv_tcp_bind(&listener, (const struct sockaddr *)&address, 0), "bind");
    check(uv_listen((uv_stream_t *)&listener, 4096, on_connection), "listen");
    check(uv_tcp_getsockname(&listener, (struct sockaddr *)&address, &length), "get the port");
    printf("libuv echo server on port %d\n", ntohs(address.sin_port));
    fflush(stdout);
    return uv_run(loop, UV_RUN_DEFAULT);
}
