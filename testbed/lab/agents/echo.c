// Sends echo requests on an absolute schedule and tells what became of them. The prober (prober.py) starts it, keeps
// the record and knows everything else; here is only what must not wait.
//
// usage: echo icmp|udp SOURCE TARGET PORT RUN_ID INTERVAL_NS PRIORITY
// (addresses of IPv4 or IPv6; RUN_ID is 16 hexadecimal digits; PRIORITY is that of SCHED_FIFO.)
//
// Standard output: records (struct record), whole ones in every write; the first is READY. When standard input ends, no
// probe is sent any more, and after FAREWELL the program ends; at SIGTERM at once. Either way it has told everything.
//
// Probe n is due at start + n * interval, whatever happened before; one that was missed is never made up for, so that
// nothing is sent in a burst. All times are CLOCK_MONOTONIC in nanoseconds; departures and arrivals are the kernel's.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <linux/errqueue.h>
#include <linux/icmp.h>
#include <linux/icmpv6.h>
#include <linux/net_tstamp.h>
#include <netinet/in.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define BILLION 1000000000ULL
#define MILLION 1000000ULL
#define FAREWELL (900 * MILLION)     // ns: an agent ends within a second
#define FAREWELL_LOOK (10 * MILLION) // ns between two looks for replies then
// A faster schedule looks for replies when it sends (the kernel has stamped them), and tells of both a few times a
// second, so that each probe wakes nobody but this process, and that once; a slower one tells what happens when it does.
#define FAST (5 * MILLION)
#define TELL_AFTER (50 * MILLION)    // ns that a fast one keeps a record to itself
#define RECORDS 170                  // of one write: no more than PIPE_BUF octets, so that it is whole
#define BATCH 16
#define ROUNDS 4                     // batches at one look; the rest waits for the next
#define PACKET 2048
#define RECEIVE_BUFFER (1 << 20)

enum kind { READY, SENT, REFUSED, DEPARTED, ANSWERED };

// READY: `seq` is the start, `ns` the priority of SCHED_FIFO, 0 if there is none. Else `seq` is the probe's, and `ns`
// when it was handed to the kernel, was refused by it, was handed to the device, or came back.
struct record {
    uint64_t kind, seq, ns;
};

// As in testbed/lab/agents/probes.py.
struct payload {
    char mark[8];
    unsigned char run[8];
    uint64_t seq;                    // network order
} __attribute__((packed));

struct echo {
    uint8_t type, code;
    uint16_t checksum, identifier, sequence;
    struct payload payload;
} __attribute__((packed));

static int fd, family, icmp;
static struct sockaddr_storage target;
static socklen_t address_length;
static struct echo echo = {.payload.mark = {'T', 'B', 'P', 'R', 'O', 'B', 'E', '1'}};
static struct record records[RECORDS];
static unsigned record_count;
static uint64_t oldest_record;
static volatile sig_atomic_t terminated;

static void on_term(int signal)
{
    (void)signal;
    terminated = 1;
}

static void die(const char *what)
{
    fprintf(stderr, "echo: %s: %s\n", what, strerror(errno));
    exit(1);
}

static uint64_t of_timespec(struct timespec t) { return (uint64_t)t.tv_sec * BILLION + (uint64_t)t.tv_nsec; }

static uint64_t now_ns(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return of_timespec(t);
}

// --- what is told

static void tell_all(void)
{
    const char *at = (const char *)records;
    size_t left = record_count * sizeof *records;
    while (left) {                   // blocks if the prober does not read; what is due meanwhile is missed, and says so
        ssize_t written = write(STDOUT_FILENO, at, left);
        if (written < 0 && errno == EINTR) continue;
        if (written < 0) exit(1);
        at += written;
        left -= (size_t)written;
    }
    record_count = 0;
}

static void tell(enum kind kind, uint64_t seq, uint64_t ns)
{
    if (record_count == RECORDS) tell_all();
    if (!record_count) oldest_record = now_ns(CLOCK_MONOTONIC);
    records[record_count++] = (struct record){kind, seq, ns};
}

// --- probes out

// RFC 1071; of ICMPv6 the kernel makes the checksum, which covers the addresses.
static uint16_t checksum(const void *data, size_t octets)
{
    const uint8_t *at = data;
    uint32_t sum = 0;
    for (size_t i = 0; i + 1 < octets; i += 2) sum += (uint32_t)at[i] << 8 | at[i + 1];
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    return htons((uint16_t)~sum);
}

static void send_probe(uint64_t seq)
{
    const void *packet = icmp ? (void *)&echo : &echo.payload;
    size_t octets = icmp ? sizeof echo : sizeof echo.payload;
    echo.payload.seq = htobe64(seq);
    echo.sequence = htons((uint16_t)seq);
    echo.checksum = 0;
    if (family == AF_INET) echo.checksum = checksum(&echo, sizeof echo);
    uint64_t now = now_ns(CLOCK_MONOTONIC);
    ssize_t sent = sendto(fd, packet, octets, MSG_DONTWAIT, (struct sockaddr *)&target, address_length);
    tell(sent == (ssize_t)octets ? SENT : REFUSED, seq, now);   // refused: no route, no room
}

// --- replies, and probes that the device has got

// CLOCK_REALTIME minus CLOCK_MONOTONIC. Both cannot be read at once, and the scheduler may take the processor in
// between: the closest of a few pairs of readings counts.
static int64_t wall_clock_ahead(void)
{
    uint64_t closest = UINT64_MAX;
    int64_t ahead = 0;
    for (int i = 0; i < 5 && closest > 1000; i++) {
        uint64_t before = now_ns(CLOCK_MONOTONIC), wall = now_ns(CLOCK_REALTIME), after = now_ns(CLOCK_MONOTONIC);
        if (after - before < closest) {
            closest = after - before;
            ahead = (int64_t)(wall - (before + after) / 2);
        }
    }
    return ahead;
}

// The kernel's stamp of a packet, CLOCK_REALTIME; 0 if it gave none.
static uint64_t stamp_of(struct msghdr *message)
{
    for (struct cmsghdr *c = CMSG_FIRSTHDR(message); c; c = CMSG_NXTHDR(message, c))
        if (c->cmsg_level == SOL_SOCKET && (c->cmsg_type == SCM_TIMESTAMPNS || c->cmsg_type == SCM_TIMESTAMPING)) {
            struct timespec t;       // the first of three with SCM_TIMESTAMPING: the software's
            memcpy(&t, CMSG_DATA(c), sizeof t);
            if (t.tv_sec) return of_timespec(t);
        }
    return 0;
}

static int is_ours(const unsigned char *at, const unsigned char *end, uint64_t *seq)
{
    struct payload found;
    if (end - at < (ptrdiff_t)sizeof found) return 0;
    memcpy(&found, at, sizeof found);
    *seq = be64toh(found.seq);
    return !memcmp(&found, &echo.payload, offsetof(struct payload, seq));
}

// A reply as the socket gives it: of a raw socket of IPv4 with the IP header, of IPv6 without (RFC 3542 §3).
static int is_reply(const unsigned char *packet, size_t length, uint64_t *seq)
{
    const unsigned char *at = packet, *end = packet + length;
    if (icmp) {
        if (family == AF_INET) {
            if (!length || (size_t)(packet[0] & 15) * 4 > length) return 0;
            at += (packet[0] & 15) * 4;
        }
        if (end - at < (ptrdiff_t)offsetof(struct echo, payload)) return 0;
        if (*at != (family == AF_INET ? ICMP_ECHOREPLY : ICMPV6_ECHO_REPLY)) return 0;
        at += offsetof(struct echo, payload);
    }
    return is_ours(at, end, seq);
}

// A probe as it left, with the headers that it got.
static int is_probe(const unsigned char *packet, size_t length, uint64_t *seq)
{
    const unsigned char *at = memmem(packet, length, echo.payload.mark, sizeof echo.payload.mark);
    return at && is_ours(at, packet + length, seq);
}

static void look(enum kind kind, int64_t ahead)
{
    static unsigned char packets[BATCH][PACKET];
    static char control[BATCH][512];
    struct mmsghdr messages[BATCH];
    struct iovec vectors[BATCH];
    int flags = MSG_DONTWAIT | (kind == DEPARTED ? MSG_ERRQUEUE : 0);
    for (int round = 0; round < ROUNDS; round++) {
        memset(messages, 0, sizeof messages);
        for (int i = 0; i < BATCH; i++) {
            vectors[i] = (struct iovec){packets[i], PACKET};
            messages[i].msg_hdr.msg_iov = &vectors[i];
            messages[i].msg_hdr.msg_iovlen = 1;
            messages[i].msg_hdr.msg_control = control[i];
            messages[i].msg_hdr.msg_controllen = sizeof control[i];
        }
        int got = recvmmsg(fd, messages, BATCH, flags, NULL);
        if (got <= 0) return;        // nothing there, or an ICMP error of an earlier probe
        uint64_t now = now_ns(CLOCK_MONOTONIC), seq;
        for (int i = 0; i < got; i++) {
            uint64_t stamp = stamp_of(&messages[i].msg_hdr);
            uint64_t moment = stamp ? stamp - (uint64_t)ahead : now;
            if (kind == DEPARTED ? stamp && is_probe(packets[i], messages[i].msg_len, &seq)
                                 : is_reply(packets[i], messages[i].msg_len, &seq))
                tell(kind, seq, moment < now ? moment : now);
        }
        if (got < BATCH) return;
    }
}

// --- set-up

static void parse_address(const char *text, unsigned port, struct sockaddr_storage *into)
{
    struct sockaddr_in *four = (struct sockaddr_in *)into;
    struct sockaddr_in6 *six = (struct sockaddr_in6 *)into;
    memset(into, 0, sizeof *into);
    if (inet_pton(AF_INET, text, &four->sin_addr) == 1) {
        four->sin_family = AF_INET;
        four->sin_port = htons((uint16_t)port);
        address_length = sizeof *four;
    } else if (inet_pton(AF_INET6, text, &six->sin6_addr) == 1) {
        six->sin6_family = AF_INET6;
        six->sin6_port = htons((uint16_t)port);
        address_length = sizeof *six;
    } else {
        errno = EINVAL;
        die(text);
    }
}

static void open_socket(const struct sockaddr_storage *source)
{
    int on = 1, size = RECEIVE_BUFFER, stamps = SOF_TIMESTAMPING_TX_SOFTWARE | SOF_TIMESTAMPING_SOFTWARE;
    if (!icmp) {
        fd = socket(family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    } else if (family == AF_INET) {
        uint32_t others = ~(1U << ICMP_ECHOREPLY);
        fd = socket(family, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_ICMP);
        if (fd >= 0 && setsockopt(fd, SOL_RAW, ICMP_FILTER, &others, sizeof others)) die("ICMP_FILTER");
    } else {
        struct icmp6_filter others;  // RFC 3542 §3.2: a set bit blocks
        memset(&others, 0xff, sizeof others);
        others.data[ICMPV6_ECHO_REPLY >> 5] &= ~(1U << (ICMPV6_ECHO_REPLY & 31));
        fd = socket(family, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_ICMPV6);
        if (fd >= 0 && setsockopt(fd, SOL_ICMPV6, ICMPV6_FILTER, &others, sizeof others)) die("ICMPV6_FILTER");
    }
    if (fd < 0) die("socket");
    if (setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof size) ||
        setsockopt(fd, SOL_SOCKET, SO_TIMESTAMPNS, &on, sizeof on) ||
        setsockopt(fd, SOL_SOCKET, SO_TIMESTAMPING, &stamps, sizeof stamps))
        die("socket options");
    if (bind(fd, (const struct sockaddr *)source, address_length)) die("source");
}

static uint64_t parse_number(const char *text)
{
    char *end;
    errno = 0;
    uint64_t number = strtoull(text, &end, 10);
    if (errno || end == text || *end) {
        errno = EINVAL;
        die(text);
    }
    return number;
}

int main(int argc, char **argv)
{
    if (argc != 8 || (strcmp(argv[1], "icmp") && strcmp(argv[1], "udp")) || strlen(argv[5]) != 16) {
        fprintf(stderr, "usage: echo icmp|udp SOURCE TARGET PORT RUN_ID INTERVAL_NS PRIORITY\n");
        return 2;
    }
    struct sockaddr_storage source;
    icmp = !strcmp(argv[1], "icmp");
    parse_address(argv[2], 0, &source);
    parse_address(argv[3], icmp ? 0 : (unsigned)parse_number(argv[4]), &target);
    family = target.ss_family;
    for (int i = 0; i < 8; i++)
        if (sscanf(argv[5] + 2 * i, "%2hhx", &echo.payload.run[i]) != 1) {
            errno = EINVAL;
            die(argv[5]);
        }
    uint64_t interval = parse_number(argv[6]);
    struct sched_param priority = {.sched_priority = (int)parse_number(argv[7])};
    if (!interval) {
        errno = EINVAL;
        die(argv[6]);
    }
    echo.type = family == AF_INET ? ICMP_ECHO : ICMPV6_ECHO_REQUEST;
    memcpy(&echo.identifier, echo.payload.run, sizeof echo.identifier);
    open_socket(&source);
    if (sched_setscheduler(0, SCHED_FIFO, &priority)) {
        priority.sched_priority = 0;
        (void)!setpriority(PRIO_PROCESS, 0, -10);
    }
    prctl(PR_SET_TIMERSLACK, 1);

    struct sigaction action = {.sa_handler = on_term};
    sigaction(SIGTERM, &action, NULL);

    uint64_t start = now_ns(CLOCK_MONOTONIC) + interval, next = 0, end = 0;
    int fast = interval <= FAST;
    tell(READY, start, (uint64_t)priority.sched_priority);
    tell_all();
    for (;;) {
        uint64_t now = now_ns(CLOCK_MONOTONIC);
        if (terminated || (end && now >= end)) break;
        if (!end && now >= start + next * interval) {
            next = (now - start) / interval;
            send_probe(next++);
        }
        int64_t ahead = wall_clock_ahead();
        look(DEPARTED, ahead);
        look(ANSWERED, ahead);
        now = now_ns(CLOCK_MONOTONIC);
        if (record_count && (!fast || end || now - oldest_record >= TELL_AFTER)) tell_all();

        uint64_t until = end ? now + FAREWELL_LOOK : start + next * interval;
        uint64_t wait = until > now ? until - now : 0;
        struct timespec timeout = {(time_t)(wait / BILLION), (long)(wait % BILLION)};
        struct pollfd waited_for[] = {{.fd = end ? -1 : STDIN_FILENO}, {.fd = fast ? -1 : fd, .events = POLLIN}};
        if (ppoll(waited_for, 2, &timeout, NULL) > 0 && waited_for[0].revents) end = now_ns(CLOCK_MONOTONIC) + FAREWELL;
    }
    tell_all();
    return 0;
}
