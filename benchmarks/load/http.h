/* What the upstream and the driver share: the time, a listener's address, and a strict reader of HTTP/1.1 messages.
 *
 * The reader takes bytes as they come and tells, step by step, of a head, pieces of a body, and an end. It knows
 * Content-Length, chunks and (for answers) the end of the connection; whatever is not plainly one of them is BAD.
 */
#ifndef HTTP_H
#define HTTP_H

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define HEAD_MAX 8192
#define STAMP_DIGITS 16 /* of a time in microseconds, after '@' */

enum step { MORE, HEAD, BODY, END, BAD };
enum place { IN_HEAD, IN_LENGTH, IN_CHUNK_SIZE, IN_CHUNK, AFTER_CHUNK, IN_TRAILER, TO_CLOSE, AT_END };

struct message {
    enum place place;
    bool is_request;
    bool closes;   /* it says that the connection ends after it */
    int status;    /* of an answer */
    uint64_t left; /* bytes of the body, or of the chunk */
    size_t size;   /* of what is in `text` */
    char text[HEAD_MAX + 1]; /* the head; after its step, the line of a chunk */
};

static inline uint64_t now_us(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

static inline void die(const char *what) {
    fprintf(stderr, "%s: %s\n", what, strerror(errno));
    exit(1);
}

/* One descriptor for each connection: as many as we may have. */
static inline void raise_descriptors(void) {
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
}

static inline struct sockaddr_in loopback(int port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return address;
}

static inline void send_at_once(int fd) {
    int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

static inline void message_begin(struct message *m, bool is_request) {
    m->place = IN_HEAD;
    m->is_request = is_request;
    m->closes = false;
    m->status = 0;
    m->left = m->size = 0;
}

/* The value of a header line with this name, or NULL. `name` ends with its colon. */
static inline const char *header_value(const char *line, const char *name) {
    size_t size = strlen(name);
    if (strncasecmp(line, name, size)) return NULL;
    for (line += size; *line == ' ' || *line == '\t';) line++;
    return line;
}

/* How the body is framed, by the head in `text`. False if it is malformed. */
static inline bool message_framing(struct message *m) {
    int lengths = 0, codings = 0;
    m->text[m->size - 2] = 0; /* the last blank line */
    char *line = strstr(m->text, "\r\n");
    if (m->is_request) {
        if (line - m->text < 14 || strncmp(line - 9, " HTTP/1.1", 9)) return false;
    } else {
        if (sscanf(m->text, "HTTP/1.1 %3d", &m->status) != 1) return false;
    }
    for (line += 2; *line;) {
        char *end = strstr(line, "\r\n"), *colon = strchr(line, ':');
        const char *value;
        if (!end || !colon || colon > end || colon == line || colon[-1] == ' ') return false;
        *end = 0;
        if ((value = header_value(line, "content-length:"))) {
            char *rest;
            m->left = strtoull(value, &rest, 10);
            if (rest == value || *rest || lengths++) return false;
        } else if ((value = header_value(line, "transfer-encoding:"))) {
            if (strcasecmp(value, "chunked") || codings++) return false;
        } else if ((value = header_value(line, "connection:"))) {
            m->closes = m->closes || !strcasecmp(value, "close");
        }
        *end = '\r';
        line = end + 2;
    }
    if (lengths && codings) return false;
    bool bodyless = m->status == 204 || m->status == 304 || (!lengths && m->is_request);
    m->place = codings ? IN_CHUNK_SIZE : bodyless || (lengths && !m->left) ? AT_END : lengths ? IN_LENGTH : TO_CLOSE;
    return true;
}

/* A line that ends with CRLF, collected in `text`: 1 when it is whole, 0 when more is needed, -1 if it is too long. */
static inline int message_line(struct message *m, const char **at, const char *end) {
    while (*at < end) {
        if (m->size == HEAD_MAX) return -1;
        m->text[m->size++] = *(*at)++;
        if (m->size >= 2 && m->text[m->size - 1] == '\n') {
            if (m->text[m->size - 2] != '\r') return -1;
            m->text[m->size - 2] = 0;
            return 1;
        }
    }
    return 0;
}

/* The next thing in the bytes from `*at`; BODY gives its piece. After HEAD, `text` is the head until the next call. */
static inline enum step message_step(struct message *m, const char **at, const char *end, const char **body,
                                     size_t *body_size) {
    char *rest;
    int whole;
    for (;;) switch (m->place) {
        case IN_HEAD: {
            size_t had = m->size, take = end - *at;
            if (!take) return MORE;
            if (take > HEAD_MAX - had) take = HEAD_MAX - had;
            memcpy(m->text + had, *at, take);
            size_t from = had > 3 ? had - 3 : 0;
            char *blank = memmem(m->text + from, had + take - from, "\r\n\r\n", 4);
            if (!blank) {
                m->size = had + take;
                *at += take;
                if (m->size == HEAD_MAX) return BAD;
                return MORE;
            }
            m->size = blank + 4 - m->text;
            *at += m->size - had;
            m->text[m->size] = 0;
            if (!message_framing(m)) return BAD;
            return HEAD;
        }
        case IN_LENGTH:
        case IN_CHUNK:
            m->size = 0;
            if (*at == end) return MORE;
            *body = *at;
            *body_size = (uint64_t)(end - *at) < m->left ? (uint64_t)(end - *at) : m->left;
            *at += *body_size;
            m->left -= *body_size;
            if (!m->left) m->place = m->place == IN_CHUNK ? AFTER_CHUNK : AT_END;
            return BODY;
        case TO_CLOSE:
            if (*at == end) return MORE;
            *body = *at;
            *body_size = end - *at;
            *at = end;
            return BODY;
        case IN_CHUNK_SIZE:
        case AFTER_CHUNK:
        case IN_TRAILER:
            if (m->size && m->text[m->size - 1] == '\n') m->size = 0; /* the head that came before */
            if ((whole = message_line(m, at, end)) < 0) return BAD;
            if (!whole) return MORE;
            m->size = 0;
            if (m->place == AFTER_CHUNK) {
                if (*m->text) return BAD;
                m->place = IN_CHUNK_SIZE;
            } else if (m->place == IN_TRAILER) {
                if (!*m->text) m->place = AT_END;
            } else {
                m->left = strtoull(m->text, &rest, 16);
                if (rest == m->text || (*rest && *rest != ';')) return BAD;
                m->place = m->left ? IN_CHUNK : IN_TRAILER;
            }
            break;
        case AT_END:
            return END;
        }
}

#endif
