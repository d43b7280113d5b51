/* A model server that costs next to nothing: what is measured is the proxy in front of it.
 *
 *     upstream [PORT]           prints `listening PORT`
 *
 * GET /v1/responses/...  404        GET /_stats  its counters       any other path  a small JSON object
 * POST to .../responses or .../chat/completions with "stream":true  a stream; without, a plain answer
 *
 * The model's name says what a stream is like: n500r50 has 500 deltas at 50 a second, the first at once; r0 sends all
 * at once; i7 behind it is a tag. Each delta bears the microsecond in which it was sent ("@" and 16 digits), rising
 * within a stream. When the client of a tagged stream leaves, `closed TAG MICROSECOND` is printed.
 */
#include "http.h"

#include <sys/prctl.h>

#define BODY_KEPT 4096
#define BACKLOG_MAX 262144 /* a stream whose client is so far behind sends no more until it has caught up */

enum route { OTHER, RESPONSES, CHAT, RESPONSE_BY_ID, STATS };

struct peer {
    int fd;
    bool wants_out, streams, closes;
    enum route route;
    struct message in;
    char body[BODY_KEPT + 1]; /* the first bytes of a request's body */
    size_t body_size;
    char *out;
    size_t out_size, out_sent, out_room;
    /* a stream */
    double rate;
    uint64_t begun, due, last_stamp;
    long deltas, sent, tag;
    int numbered;
    char *text; /* all deltas, for the last events */
    size_t text_size;
    size_t heap_at; /* place in the heap of timers, from 1; 0 if there is none */
};

static int epoll_fd;
static struct peer **heap;
static size_t heap_size, heap_room;
static struct { uint64_t requests, uploads, deltas, begun, ended, left, open; } stats;

/* ── timers: a heap by `due` ── */

static void heap_put(size_t at, struct peer *p) { heap[at] = p, p->heap_at = at; }

static void heap_settle(size_t at) {
    struct peer *p = heap[at];
    for (; at > 1 && heap[at / 2]->due > p->due; at /= 2) heap_put(at, heap[at / 2]);
    for (size_t child; (child = at * 2) <= heap_size; at = child) {
        if (child < heap_size && heap[child + 1]->due < heap[child]->due) child++;
        if (heap[child]->due >= p->due) break;
        heap_put(at, heap[child]);
    }
    heap_put(at, p);
}

static void heap_add(struct peer *p) {
    if (heap_size + 2 > heap_room) {
        heap_room = heap_room ? heap_room * 2 : 1024;
        if (!(heap = realloc(heap, heap_room * sizeof *heap))) die("memory");
    }
    heap_put(++heap_size, p);
    heap_settle(heap_size);
}

static void heap_remove(struct peer *p) {
    size_t at = p->heap_at;
    if (!at) return;
    p->heap_at = 0;
    struct peer *last = heap[heap_size--];
    if (last == p) return;
    heap_put(at, last);
    heap_settle(at);
}

/* ── what is sent ── */

static void put(struct peer *p, const char *bytes, size_t size) {
    if (p->out_size + size > p->out_room) {
        p->out_room = (p->out_size + size) * 2;
        if (!(p->out = realloc(p->out, p->out_room))) die("memory");
    }
    memcpy(p->out + p->out_size, bytes, size);
    p->out_size += size;
}

static void put_chunk(struct peer *p, const char *bytes, size_t size) {
    char line[24];
    put(p, line, snprintf(line, sizeof line, "%zx\r\n", size));
    put(p, bytes, size);
    put(p, "\r\n", 2);
}

static void put_answer(struct peer *p, const char *status, const char *json) {
    char head[256];
    int size = snprintf(head, sizeof head, "HTTP/1.1 %s\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n%s\r\n",
                        status, strlen(json), p->closes ? "Connection: close\r\n" : "");
    put(p, head, size);
    put(p, json, strlen(json));
}

/* An event of the Responses API. `fields` is what follows its number, with %s for the text so far. */
static void put_event(struct peer *p, const char *kind, const char *fields, const char *text) {
    static char *frame;
    static size_t room;
    size_t need = strlen(fields) + strlen(text) * 2 + 256;
    if (need > room && !(frame = realloc(frame, room = need * 2))) die("memory");
    int size = sprintf(frame, "event: %s\ndata: {\"type\":\"%s\",\"sequence_number\":%d,", kind, kind, p->numbered++);
    size += sprintf(frame + size, fields, text);
    size += sprintf(frame + size, "}\n\n");
    put_chunk(p, frame, size);
}

static void put_chat(struct peer *p, const char *delta, const char *finish, const char *usage) {
    char frame[512];
    put_chunk(p, frame, snprintf(frame, sizeof frame,
        "data: {\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"created\":1770000000,\"model\":\"m\","
        "\"choices\":[{\"index\":0,\"delta\":{%s},\"logprobs\":null,\"finish_reason\":%s}]%s}\n\n", delta, finish, usage));
}

#define PLACE "\"item_id\":\"msg_1\",\"output_index\":0,\"content_index\":0"
#define PART(text) "{\"type\":\"output_text\",\"text\":\"" text "\",\"annotations\":[],\"logprobs\":[]}"
#define ITEM(status, content) "{\"id\":\"msg_1\",\"type\":\"message\",\"role\":\"assistant\",\"status\":\"" status "\",\"content\":[" content "]}"
#define WHOLE(status, output, more) "{\"id\":\"resp_up\",\"object\":\"response\",\"created_at\":1770000000,\"model\":\"m\",\"status\":\"" status "\",\"output\":[" output "]" more "}"
#define USAGE ",\"usage\":{\"input_tokens\":1,\"input_tokens_details\":{\"cached_tokens\":0},\"output_tokens\":1,\"output_tokens_details\":{\"reasoning_tokens\":0},\"total_tokens\":2}"
#define CHAT_USAGE "\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":1,\"total_tokens\":2}"

static void stream_begins(struct peer *p) {
    const char *head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
    put(p, head, strlen(head));
    if (p->route == CHAT) return put_chat(p, "\"role\":\"assistant\",\"content\":\"\"", "null", "");
    put_event(p, "response.created", "\"response\":" WHOLE("in_progress", "", "%s"), "");
    put_event(p, "response.in_progress", "\"response\":" WHOLE("in_progress", "", "%s"), "");
    put_event(p, "response.output_item.added", "\"output_index\":0,\"item\":" ITEM("in_progress", "%s"), "");
    put_event(p, "response.content_part.added", PLACE ",\"part\":" PART("%s"), "");
}

static void stream_delta(struct peer *p, uint64_t now) {
    char word[32], delta[64];
    p->last_stamp = now > p->last_stamp ? now : p->last_stamp + 1;
    int size = sprintf(word, " @%0*llu", STAMP_DIGITS, (unsigned long long)p->last_stamp);
    p->sent++, stats.deltas++;
    if (p->route == CHAT) {
        sprintf(delta, "\"content\":\"%s\"", word);
        return put_chat(p, delta, "null", "");
    }
    put_event(p, "response.output_text.delta", PLACE ",\"delta\":\"%s\",\"logprobs\":[]", word);
    memcpy(p->text + p->text_size, word, size + 1);
    p->text_size += size;
}

static void stream_ends(struct peer *p) {
    if (p->route == CHAT) {
        put_chat(p, "", "\"stop\"", "," CHAT_USAGE);
        put_chunk(p, "data: [DONE]\n\n", 14);
    } else {
        put_event(p, "response.output_text.done", PLACE ",\"text\":\"%s\",\"logprobs\":[]", p->text);
        put_event(p, "response.content_part.done", PLACE ",\"part\":" PART("%s"), p->text);
        put_event(p, "response.output_item.done", "\"output_index\":0,\"item\":" ITEM("completed", PART("%s")), p->text);
        put_event(p, "response.completed", "\"response\":" WHOLE("completed", ITEM("completed", PART("%s")), USAGE), p->text);
    }
    put(p, "0\r\n\r\n", 5);
    free(p->text);
    p->text = NULL;
    p->streams = false;
    stats.ended++;
}

/* ── requests ── */

/* What the model's name asks for; false if it is not like n500r50i7. */
static bool stream_asked(struct peer *p) {
    char *model = strstr(p->body, "\"model\"");
    p->deltas = 10, p->rate = 0, p->tag = -1;
    if (!model) return true;
    for (model += 7; *model == ' ' || *model == ':' || *model == '"';) model++;
    return sscanf(model, "n%ldr%lfi%ld", &p->deltas, &p->rate, &p->tag) >= 2;
}

static void answer(struct peer *p) {
    char text[512];
    bool streams = strstr(p->body, "\"stream\":true") || strstr(p->body, "\"stream\": true");
    p->streams = streams && (p->route == RESPONSES || p->route == CHAT);
    stats.requests++;
    if (p->route == STATS) {
        sprintf(text, "{\"requests\":%llu,\"uploads\":%llu,\"deltas\":%llu,\"begun\":%llu,\"ended\":%llu,\"left\":%llu}",
                (unsigned long long)stats.requests, (unsigned long long)stats.uploads, (unsigned long long)stats.deltas,
                (unsigned long long)stats.begun, (unsigned long long)stats.ended, (unsigned long long)stats.left);
        put_answer(p, "200 OK", text);
    } else if (p->route == RESPONSE_BY_ID) {
        put_answer(p, "404 Not Found", "{\"error\":{\"message\":\"No such response\",\"type\":\"invalid_request_error\",\"param\":null,\"code\":null}}");
    } else if (p->streams && !stream_asked(p)) {
        p->streams = false;
        put_answer(p, "400 Bad Request", "{\"error\":{\"message\":\"No such model\",\"type\":\"invalid_request_error\",\"param\":\"model\",\"code\":null}}");
    } else if (p->streams) {
        stats.begun++;
        p->begun = p->due = now_us(), p->last_stamp = 0, p->sent = p->numbered = 0, p->text_size = 0;
        if (p->rate > 0) p->begun += rand() % (long)(1e6 / p->rate + 1); /* streams are not in step */
        if (!(p->text = malloc(p->deltas * (STAMP_DIGITS + 2) + 1))) die("memory");
        *p->text = 0;
        stream_begins(p);
        heap_add(p);
    } else if (p->route == RESPONSES) {
        put_answer(p, "200 OK", WHOLE("completed", ITEM("completed", PART("Good day.")), USAGE));
    } else if (p->route == CHAT) {
        put_answer(p, "200 OK", "{\"id\":\"chatcmpl-1\",\"object\":\"chat.completion\",\"created\":1770000000,\"model\":\"m\",\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"Good day.\"},\"logprobs\":null,\"finish_reason\":\"stop\"}]," CHAT_USAGE "}");
    } else {
        put_answer(p, "200 OK", "{\"object\":\"list\",\"data\":[{\"id\":\"m\",\"object\":\"model\",\"created\":1770000000,\"owned_by\":\"bench\"}]}");
    }
}

static enum route route_of(const char *head) {
    bool post = !strncmp(head, "POST ", 5);
    const char *path = strchr(head, ' ') + 1, *end = strchr(path, ' ');
    size_t size = end - path;
#define ENDS_WITH(s) (size >= sizeof s - 1 && !memcmp(end - (sizeof s - 1), s, sizeof s - 1))
    if (post) return ENDS_WITH("/chat/completions") ? CHAT : ENDS_WITH("/responses") ? RESPONSES : OTHER;
    return ENDS_WITH("/_stats") ? STATS : !strncmp(path, "/v1/responses/", 14) ? RESPONSE_BY_ID : OTHER;
}

/* False when the connection is to be closed: what came was not HTTP, or more than one request at a time. */
static bool take(struct peer *p, const char *at, const char *end) {
    const char *piece;
    size_t size;
    while (at < end || p->in.place == AT_END) switch (message_step(&p->in, &at, end, &piece, &size)) {
        case HEAD:
            if (p->streams) return false;
            p->route = route_of(p->in.text);
            p->closes = p->in.closes;
            p->body_size = 0;
            p->body[0] = 0;
            break;
        case BODY:
            if (size > BODY_KEPT - p->body_size) size = BODY_KEPT - p->body_size;
            memcpy(p->body + p->body_size, piece, size);
            p->body_size += size;
            p->body[p->body_size] = 0;
            break;
        case END:
            if (p->body_size == BODY_KEPT) stats.uploads++;
            answer(p);
            message_begin(&p->in, true);
            break;
        case MORE:
            return true;
        case BAD:
            return false;
        }
    return true;
}

/* ── connections ── */

static void leave(struct peer *p) {
    if (p->streams) {
        stats.left++;
        if (p->tag >= 0) printf("closed %ld %llu\n", p->tag, (unsigned long long)now_us()), fflush(stdout);
    }
    stats.open--;
    heap_remove(p);
    close(p->fd);
    free(p->text);
    free(p->out);
    free(p);
}

/* False if the client has gone, or has all that it was to get. */
static bool flush(struct peer *p) {
    while (p->out_sent < p->out_size) {
        ssize_t sent = send(p->fd, p->out + p->out_sent, p->out_size - p->out_sent, MSG_NOSIGNAL);
        if (sent < 0 && errno != EAGAIN) return false;
        if (sent < 0) break;
        p->out_sent += sent;
    }
    bool rest = p->out_sent < p->out_size;
    if (!rest) p->out_sent = p->out_size = 0;
    if (rest != p->wants_out) {
        struct epoll_event event = {.events = EPOLLIN | EPOLLRDHUP | (rest ? EPOLLOUT : 0), .data.ptr = p};
        epoll_ctl(epoll_fd, EPOLL_CTL_MOD, p->fd, &event);
        p->wants_out = rest;
    }
    return rest || p->streams || !p->closes;
}

static void tick(struct peer *p, uint64_t now) {
    bool behind = p->out_size - p->out_sent > BACKLOG_MAX;
    if (behind) {
        p->due = now + 1000;
        heap_settle(p->heap_at);
    } else {
        stream_delta(p, now);
        if (p->sent == p->deltas) {
            heap_remove(p);
            stream_ends(p);
        } else if (p->rate > 0) {
            p->due = p->begun + (uint64_t)((p->sent - 1) * 1e6 / p->rate);
            if (p->due < now) p->due = now;
            heap_settle(p->heap_at);
        }
    }
    if (p->rate > 0 || p->sent % 64 == 0 || behind || !p->streams)
        if (!flush(p)) leave(p);
}

static void accept_all(int listener) {
    for (int fd; (fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0;) {
        struct peer *p = calloc(1, sizeof *p);
        if (!p) die("memory");
        p->fd = fd;
        message_begin(&p->in, true);
        send_at_once(fd);
        struct epoll_event event = {.events = EPOLLIN | EPOLLRDHUP, .data.ptr = p};
        epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event);
        stats.open++;
    }
}

static void serve(struct peer *p, uint32_t events) {
    static char bytes[262144];
    if (events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) {
        ssize_t got = recv(p->fd, bytes, sizeof bytes, 0);
        if (got == 0 || (got < 0 && errno != EAGAIN)) return leave(p);
        if (got > 0 && !take(p, bytes, bytes + got)) return leave(p);
    }
    if (!flush(p)) leave(p);
}

int main(int count, char **arguments) {
    struct sockaddr_in address = loopback(count > 1 ? atoi(arguments[1]) : 0);
    socklen_t size = sizeof address;
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), on = 1;
    prctl(PR_SET_TIMERSLACK, 1000UL); /* ns */
    raise_descriptors();
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(listener, (struct sockaddr *)&address, size) || listen(listener, 4096)) die("listen");
    getsockname(listener, (struct sockaddr *)&address, &size);
    epoll_fd = epoll_create1(0);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL}, events[256];
    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, listener, &event);
    printf("listening %d\n", ntohs(address.sin_port));
    fflush(stdout);
    for (;;) {
        struct timespec wait = {.tv_sec = 1};
        if (heap_size) {
            uint64_t now = now_us(), due = heap[1]->due;
            uint64_t left = due > now ? due - now : 0;
            wait = (struct timespec){.tv_sec = left / 1000000, .tv_nsec = left % 1000000 * 1000};
        }
        int found = epoll_pwait2(epoll_fd, events, 256, &wait, NULL);
        for (int i = 0; i < found; i++) {
            if (events[i].data.ptr) serve(events[i].data.ptr, events[i].events);
            else accept_all(listener);
        }
        uint64_t now = now_us();
        for (int ticks = 0; heap_size && heap[1]->due <= now && ticks < 4096; ticks++) tick(heap[1], now);
    }
}
