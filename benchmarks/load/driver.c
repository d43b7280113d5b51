/* Asks a server over many connections, and measures what comes back.
 *
 *     driver load   --port P --request FILE --connections C --seconds S [--rate R] [--warm S] [--count N]
 *     driver stream --port P --request FILE --connections C [--followers F] [--ramp S] [--from S] [--to S] [--leave]
 *
 * load: every connection asks again when it has been answered; with --rate, R requests a second in all. A request
 * that had to wait for a free connection is late from when it was due. stream: every connection asks once, and reads the answer to its end. Deltas
 * are known by their stamps ("@" and a microsecond, see upstream.c), which rise within a stream: a stamp that does not
 * is a repetition in a last event. With --followers, F - 1 more readers join each response (GET /v1/responses/ID).
 * Counted are deltas between --from and --to seconds; with --leave all connections are closed then.
 *
 * With --cpu PID (repeatable) the CPU time of processes between the same two moments is read. One line of JSON.
 */
#include "http.h"

#include <getopt.h>
#include <sys/prctl.h>

struct samples { uint32_t *values; size_t size, room; };

struct peer {
    int fd;
    bool waits, over, follows;
    struct message in;
    const char *request;
    size_t request_size, sent;
    uint64_t asked, due;
    bool wants_out;
    /* of a stream */
    uint64_t stamp, last_stamp;
    int stamp_digits; /* 0: outside; 1: after '@' */
    bool has_delta;
    char id[128];     /* of the response, for followers */
    size_t id_size;   /* how much of `"id":"` is matched, then of the id itself */
    int id_state;
};

static const char ID_KEY[] = "\"id\":\"";
static int epoll_fd, port, connections = 1, followers = 1;
static double seconds = 2, rate, warm, ramp, from_s, to_s;
static long count_max;
static bool streams, leaves;
static const char *request_file;
static int pids[64], pid_count;
static char *request;
static size_t request_size;
static uint64_t started, measured_from, measured_to, cpu_before, cpu_after, ended_at;
static bool in_window;
static struct samples latencies, delays, firsts;
static uint64_t answers, all_answers, failures, deltas, all_deltas, bytes, whole, broken;
static int open_now, peers_all;

static void keep(struct samples *s, uint64_t value) {
    if (s->size == s->room) {
        s->room = s->room ? s->room * 2 : 65536;
        if (!(s->values = realloc(s->values, s->room * sizeof *s->values))) die("memory");
    }
    s->values[s->size++] = value > UINT32_MAX ? UINT32_MAX : value;
}

static int by_value(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

static void print_samples(const char *name, struct samples *s) {
    if (s->size) qsort(s->values, s->size, sizeof *s->values, by_value);
#define RANK(share) (s->size ? s->values[(size_t)((s->size - 1) * (share))] : 0)
    printf(",\"%s\":{\"count\":%zu,\"p50\":%u,\"p90\":%u,\"p99\":%u,\"max\":%u}", name, s->size, RANK(0.5), RANK(0.9),
           RANK(0.99), RANK(1));
}

/* Nanoseconds of CPU that the processes have had, all their threads together. */
static uint64_t cpu_ns(void) {
    uint64_t sum = 0;
    for (int i = 0; i < pid_count; i++) {
        struct timespec t;
        if (clock_gettime(((~(clockid_t)pids[i]) << 3) | 2, &t)) die("cpu time of the process");
        sum += (uint64_t)t.tv_sec * 1000000000 + t.tv_nsec;
    }
    return sum;
}

/* ── connections ── */

static void poll_for(struct peer *p, bool out, int how) {
    struct epoll_event event = {.events = EPOLLIN | EPOLLRDHUP | (out ? EPOLLOUT : 0), .data.ptr = p};
    epoll_ctl(epoll_fd, how, p->fd, &event);
    p->wants_out = out;
}

static void connect_to(struct peer *p) {
    struct sockaddr_in address = loopback(port);
    for (int tries = 0;; tries++) {
        if ((p->fd = socket(AF_INET, SOCK_STREAM, 0)) < 0) die("socket");
        if (!connect(p->fd, (struct sockaddr *)&address, sizeof address)) break;
        if (tries == 20) die("connect");
        close(p->fd);
        usleep(50000);
    }
    fcntl(p->fd, F_SETFL, O_NONBLOCK);
    send_at_once(p->fd);
    poll_for(p, false, EPOLL_CTL_ADD);
    message_begin(&p->in, false);
    p->waits = p->over = false;
    p->sent = 0;
    open_now++;
}

static void hang_up(struct peer *p) {
    if (p->over) return;
    close(p->fd);
    p->over = true;
    open_now--;
}

static void fail(struct peer *p) {
    if (failures++ < 3) fprintf(stderr, "bad answer: %.200s\n", p->in.place == IN_HEAD ? "(no head)" : p->in.text);
    if (streams) broken++;
    hang_up(p);
    if (!streams) connect_to(p);
}

/* Sends what is left of the request. */
static void push(struct peer *p) {
    while (p->sent < p->request_size) {
        ssize_t sent = send(p->fd, p->request + p->sent, p->request_size - p->sent, MSG_NOSIGNAL);
        if (sent < 0 && errno != EAGAIN) return fail(p);
        if (sent < 0) break;
        p->sent += sent;
    }
    bool rest = p->sent < p->request_size;
    if (rest != p->wants_out) poll_for(p, rest, EPOLL_CTL_MOD);
}

static void ask(struct peer *p, uint64_t due) {
    p->asked = due;
    p->waits = true;
    p->sent = 0;
    message_begin(&p->in, false);
    push(p);
}

static struct peer *peer_new(const char *text, size_t size) {
    struct peer *p = calloc(1, sizeof *p);
    if (!p) die("memory");
    p->request = text, p->request_size = size;
    peers_all++;
    connect_to(p);
    return p;
}

/* ── streams ── */

static void follow(const char *id) {
    char text[1024], *key = strstr(request, "\r\nAuthorization:");
    int size = snprintf(text, sizeof text, "GET /v1/responses/%s?stream=true HTTP/1.1\r\nHost: bench%.*s\r\n"
                        "Accept: text/event-stream\r\n\r\n", id, key ? (int)strcspn(key + 2, "\r") + 2 : 0, key ? key : "");
    for (int i = 1; i < followers; i++) {
        struct peer *p = peer_new(strdup(text), size);
        p->follows = true;
        ask(p, now_us());
    }
}

static void stamped(struct peer *p, uint64_t now) {
    if (p->stamp <= p->last_stamp) return;
    p->last_stamp = p->stamp;
    all_deltas++;
    if (!p->has_delta && !p->follows) keep(&firsts, now - p->asked);
    p->has_delta = true;
    if (!in_window) return;
    deltas++;
    keep(&delays, now > p->stamp ? now - p->stamp : 0);
}

/* Looks for the response's id (once) and for stamps; either may be cut in two between reads. */
static void scan(struct peer *p, const char *at, size_t size, uint64_t now) {
    const char *end = at + size;
    for (; followers > 1 && !p->follows && p->id_state < 2 && at < end; at++) {
        if (p->id_state == 0) {
            p->id_size = *at == ID_KEY[p->id_size] ? p->id_size + 1 : *at == ID_KEY[0];
            if (p->id_size == sizeof ID_KEY - 1) p->id_state = 1, p->id_size = 0;
        } else if (*at == '"' || p->id_size == sizeof p->id - 1) {
            p->id_state = 2;
            follow(p->id);
        } else {
            p->id[p->id_size++] = *at;
        }
    }
    while (at < end) {
        if (!p->stamp_digits) {
            if (!(at = memchr(at, '@', end - at))) return;
            at++, p->stamp = 0, p->stamp_digits = 1;
        }
        for (; at < end && p->stamp_digits <= STAMP_DIGITS && *at >= '0' && *at <= '9'; at++, p->stamp_digits++)
            p->stamp = p->stamp * 10 + (*at - '0');
        if (at == end && p->stamp_digits <= STAMP_DIGITS) return;
        if (p->stamp_digits == STAMP_DIGITS + 1) stamped(p, now);
        p->stamp_digits = 0;
    }
}

/* ── answers ── */

static void answered(struct peer *p, uint64_t now) {
    p->waits = false;
    all_answers++;
    if (streams) {
        whole++;
        ended_at = now;
        return hang_up(p);
    }
    if (in_window) {
        answers++;
        keep(&latencies, now - p->asked);
    }
    if (p->in.closes) {
        hang_up(p);
        connect_to(p);
    }
    if (rate <= 0 && (!count_max || (long)all_answers + open_now <= count_max)) ask(p, now);
}

static void receive(struct peer *p, uint64_t now) {
    static char buffer[1 << 18];
    ssize_t got = recv(p->fd, buffer, sizeof buffer, 0);
    if (got < 0 && errno == EAGAIN) return;
    if (got <= 0) {
        if (p->waits && p->in.place == TO_CLOSE) return answered(p, now);
        if (p->waits || streams) return fail(p);
        hang_up(p); /* an idle connection that the server has closed */
        return connect_to(p);
    }
    const char *at = buffer, *end = buffer + got, *piece;
    size_t size;
    bytes += got;
    if (!p->waits) return fail(p); /* it talks unasked */
    while (!p->over && p->waits && (at < end || p->in.place == AT_END))
        switch (message_step(&p->in, &at, end, &piece, &size)) {
        case HEAD: if (p->in.status != 200) return fail(p); break;
        case BODY: if (streams) scan(p, piece, size, now); break;
        case END: answered(p, now); break;
        case MORE: return;
        case BAD: return fail(p);
        }
}

/* ── the run ── */

static void window(uint64_t now) {
    if (!in_window && !measured_from && now >= started + (uint64_t)(from_s * 1e6)) {
        measured_from = now, cpu_before = cpu_ns(), in_window = true;
    } else if (in_window && now >= started + (uint64_t)(to_s * 1e6)) {
        measured_to = now, cpu_after = cpu_ns(), in_window = false;
    }
}

static void wait_until(uint64_t due) {
    struct epoll_event events[256];
    uint64_t now = now_us(), left = due > now ? due - now : 0;
    struct timespec wait = {.tv_sec = left / 1000000, .tv_nsec = left % 1000000 * 1000};
    int found = epoll_pwait2(epoll_fd, events, 256, &wait, NULL);
    now = now_us();
    for (int i = 0; i < found; i++) {
        struct peer *p = events[i].data.ptr;
        if (!p->over && events[i].events & EPOLLOUT) push(p);
        if (!p->over && events[i].events & ~EPOLLOUT) receive(p, now);
    }
    window(now_us());
}

/* What happens next when nothing is received, at the latest. */
static uint64_t next_edge(void) {
    return started + (uint64_t)((measured_from ? to_s : from_s) * 1e6);
}

static void run_load(struct peer **peers) {
    uint64_t asked = 0, end = started + (uint64_t)(to_s * 1e6);
    bool all_busy = false;
    if (rate <= 0)
        for (int i = 0; i < connections && (!count_max || i < count_max); i++) ask(peers[i], now_us());
    for (int next = 0; now_us() < end && (!count_max || (long)all_answers < count_max);) {
        uint64_t due = rate > 0 ? started + (uint64_t)(asked * 1e6 / rate) : UINT64_MAX, now = now_us();
        if (rate > 0 && due <= now && (!count_max || (long)asked < count_max)) {
            int free_at = -1;
            for (int i = 0; i < connections && free_at < 0; i++)
                if (!peers[(next + i) % connections]->waits) free_at = (next + i) % connections;
            if (free_at >= 0) {
                ask(peers[free_at], all_busy ? due : now);
                next = free_at + 1, asked++, all_busy = false;
                continue;
            }
            all_busy = true; /* the latency of the next grows */
            due = UINT64_MAX;
        }
        uint64_t edge = next_edge();
        wait_until(due < edge ? due : edge);
    }
    window(end); /* where all that was to be asked has been answered before */
    if (in_window) measured_to = now_us(), cpu_after = cpu_ns();
}

static void run_streams(struct peer **peers) {
    int asked = 0;
    uint64_t end = started + (uint64_t)(seconds * 1e6);
    while (now_us() < end && (asked < connections || open_now) && !(leaves && measured_to)) {
        uint64_t due = asked < connections ? started + (uint64_t)(asked * ramp * 1e6 / connections) : UINT64_MAX;
        if (due <= now_us()) {
            ask(peers[asked++], now_us());
            continue;
        }
        uint64_t edge = measured_to ? end : next_edge();
        wait_until(due < edge ? due : edge);
    }
    if (in_window) measured_to = now_us(), cpu_after = cpu_ns();
}

static void read_request(void) {
    FILE *file = fopen(request_file, "r");
    if (!file) die(request_file);
    request = calloc(1, (1 << 22) + 1);
    request_size = fread(request, 1, 1 << 22, file);
    fclose(file);
}

int main(int count, char **arguments) {
    static struct option options[] = {
        {"port", 1, 0, 'p'}, {"request", 1, 0, 'q'}, {"connections", 1, 0, 'c'}, {"followers", 1, 0, 'f'},
        {"seconds", 1, 0, 's'}, {"rate", 1, 0, 'r'}, {"warm", 1, 0, 'w'}, {"ramp", 1, 0, 'm'}, {"from", 1, 0, 'F'},
        {"to", 1, 0, 'T'}, {"count", 1, 0, 'n'}, {"cpu", 1, 0, 'u'}, {"leave", 0, 0, 'l'}, {0, 0, 0, 0}};
    streams = count > 1 && !strcmp(arguments[1], "stream");
    for (int found; (found = getopt_long(count, arguments, "", options, NULL)) != -1;) switch (found) {
        case 'p': port = atoi(optarg); break;
        case 'q': request_file = optarg; break;
        case 'c': connections = atoi(optarg); break;
        case 'f': followers = atoi(optarg); break;
        case 's': seconds = atof(optarg); break;
        case 'r': rate = atof(optarg); break;
        case 'w': warm = atof(optarg); break;
        case 'm': ramp = atof(optarg); break;
        case 'F': from_s = atof(optarg); break;
        case 'T': to_s = atof(optarg); break;
        case 'n': count_max = atol(optarg); break;
        case 'u': if (pid_count < 64) pids[pid_count++] = atoi(optarg); break;
        case 'l': leaves = true; break;
        default: return 2;
        }
    if (!port || !request_file) return fprintf(stderr, "--port and --request are needed\n"), 2;
    if (!streams) from_s = warm, to_s = warm + seconds;
    if (streams && to_s <= 0) to_s = seconds;
    prctl(PR_SET_TIMERSLACK, 1000UL); /* ns */
    raise_descriptors();
    read_request();
    epoll_fd = epoll_create1(0);
    struct peer **peers = malloc(connections * sizeof *peers);
    for (int i = 0; i < connections; i++) peers[i] = peer_new(request, request_size);
    started = now_us();
    window(started);
    if (streams) run_streams(peers);
    else run_load(peers);
    double took = (measured_to - measured_from) / 1e6;
    printf("{\"seconds\":%.6f,\"cpu_us\":%.1f,\"answers\":%llu,\"all_answers\":%llu,\"failures\":%llu,\"bytes\":%llu", took,
           (cpu_after - cpu_before) / 1e3, (unsigned long long)answers, (unsigned long long)all_answers,
           (unsigned long long)failures, (unsigned long long)bytes);
    printf(",\"deltas\":%llu,\"all_deltas\":%llu,\"whole\":%llu,\"broken\":%llu,\"open\":%d,\"ended_s\":%.6f",
           (unsigned long long)deltas, (unsigned long long)all_deltas, (unsigned long long)whole,
           (unsigned long long)broken, open_now, ended_at ? (ended_at - started) / 1e6 : 0);
    print_samples("latency_us", &latencies);
    print_samples("delay_us", &delays);
    print_samples("first_us", &firsts);
    printf("}\n");
    return 0;
}
