// Joins pairs of network interfaces and impairs what passes: delay, jitter, loss, rate. For kernels
// without netem. One process serves every link of a lab.
//
// Standard input, a line for each link:
//     LEFT RIGHT DELAY_NS JITTER_NS LOSS_PPB RATE_BPS QUEUE_BYTES FRAME_BYTES SEED
// (names of interfaces; LOSS_PPB of 1e9; RATE_BPS 0 = none). Standard output: "ready POLICY", then one
// line of JSON for each SIGUSR1 and a last one at SIGTERM.
//
// A frame's due time counts from the kernel's receive stamp, not from when this process got to it, so
// a late wake-up on arrival costs nothing. The n-th frame of a direction always meets the same fate:
// each direction has its own generator, and every frame draws from it the same number of times.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <math.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#define BATCH 64
#define MAX_LINKS 512
#define MAX_BATCHES_A_WAKE 4         // then others get their turn
#define MAX_IN_FLIGHT 65536          // frames of one direction, so that no rate limit is no memory leak
#define SOCKET_BUFFER (8 << 20)
#define EARLY 200000                 // ns: what is due so soon goes now, which halves the wake-ups of a paced stream
#define LATE 1000000                 // ns: a frame that leaves so long after its time is counted
#define BILLION 1000000000ULL

struct frame {
    uint64_t due, order;
    struct direction *direction;
    uint32_t length;
    unsigned char data[];
};

struct direction {
    int in, out;                     // sockets: received on `in`, sent on `out`
    char from[IF_NAMESIZE], to[IF_NAMESIZE];
    uint64_t delay, jitter, loss, rate, queue, free_at, random[4];
    uint32_t frame_bytes, in_flight;
    uint64_t received, sent, lost, queue_dropped, unsendable, bytes, late, late_max;
    struct frame *spare[BATCH], *batch[BATCH];
    int batched;
};

static struct direction directions[2 * MAX_LINKS];
static int direction_count;
static struct frame **heap;
static size_t heap_size, heap_space;
static uint64_t next_order;

static void die(const char *what)
{
    fprintf(stderr, "relay: %s: %s\n", what, strerror(errno));
    exit(1);
}

static uint64_t now_ns(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (uint64_t)t.tv_sec * BILLION + (uint64_t)t.tv_nsec;
}

// --- randomness: xoshiro256**, seeded by splitmix64 (Blackman & Vigna)

static uint64_t rotl(uint64_t x, int k) { return (x << k) | (x >> (64 - k)); }

static uint64_t draw(uint64_t s[4])
{
    uint64_t result = rotl(s[1] * 5, 7) * 9, t = s[1] << 17;
    s[2] ^= s[0]; s[3] ^= s[1]; s[1] ^= s[2]; s[0] ^= s[3];
    s[2] ^= t;
    s[3] = rotl(s[3], 45);
    return result;
}

static void seed(uint64_t s[4], uint64_t x)
{
    for (int i = 0; i < 4; i++) {
        uint64_t z = (x += 0x9e3779b97f4a7c15ULL);
        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
        z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
        s[i] = z ^ (z >> 31);
    }
}

static double uniform(uint64_t s[4]) { return ((double)(draw(s) >> 11) + 0.5) * 0x1p-53; }

static double normal(uint64_t s[4])
{
    double u = uniform(s), v = uniform(s);
    return sqrt(-2.0 * log(u)) * cos(2.0 * M_PI * v);
}

// --- the timer heap: earliest due first, equal ones in order of arrival

static int before(const struct frame *a, const struct frame *b)
{
    return a->due != b->due ? a->due < b->due : a->order < b->order;
}

static void push(struct frame *f)
{
    if (heap_size == heap_space) {
        heap_space = heap_space ? 2 * heap_space : 4096;
        if (!(heap = realloc(heap, heap_space * sizeof *heap))) die("memory");
    }
    size_t i = heap_size++;
    for (; i && before(f, heap[(i - 1) / 2]); i = (i - 1) / 2) heap[i] = heap[(i - 1) / 2];
    heap[i] = f;
}

static struct frame *pop(void)
{
    struct frame *top = heap[0], *last = heap[--heap_size];
    size_t i = 0, child;
    while ((child = 2 * i + 1) < heap_size) {
        if (child + 1 < heap_size && before(heap[child + 1], heap[child])) child++;
        if (!before(heap[child], last)) break;
        heap[i] = heap[child];
        i = child;
    }
    heap[i] = last;
    return top;
}

// --- frames in

static struct frame *fresh(const struct direction *d)
{
    struct frame *f = malloc(sizeof *f + d->frame_bytes);
    if (!f) die("memory");
    return f;
}

// Decide a frame's fate; return 0 if it is dropped.
static int admit(struct direction *d, struct frame *f, uint64_t arrival)
{
    int lost = uniform(d->random) * 1e9 < (double)d->loss;
    double wobble = d->jitter ? normal(d->random) * (double)d->jitter : 0.0;
    uint64_t due = arrival;
    d->received++;
    if (lost) { d->lost++; return 0; }
    if (d->rate) {
        uint64_t start = d->free_at > arrival ? d->free_at : arrival;
        uint64_t backlog = (uint64_t)((double)(start - arrival) * (double)d->rate / 8e9);
        if (backlog + f->length > d->queue) { d->queue_dropped++; return 0; }
        due = d->free_at = start + (uint64_t)f->length * 8 * BILLION / d->rate;
    }
    if (d->in_flight >= MAX_IN_FLIGHT) { d->queue_dropped++; return 0; }
    double total = (double)d->delay + wobble;
    f->due = due + (total > 0 ? (uint64_t)total : 0);
    f->order = next_order++;
    f->direction = d;
    return 1;
}

static uint64_t receive_stamp(struct msghdr *m, uint64_t fallback)
{
    for (struct cmsghdr *c = CMSG_FIRSTHDR(m); c; c = CMSG_NXTHDR(m, c))
        if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_TIMESTAMPNS) {
            struct timespec t;
            memcpy(&t, CMSG_DATA(c), sizeof t);
            return (uint64_t)t.tv_sec * BILLION + (uint64_t)t.tv_nsec;
        }
    return fallback;
}

static void receive(struct direction *d)
{
    struct mmsghdr messages[BATCH];
    struct iovec vectors[BATCH];
    struct sockaddr_ll from[BATCH];
    char control[BATCH][CMSG_SPACE(sizeof(struct timespec))];

    for (int round = 0; round < MAX_BATCHES_A_WAKE; round++) {
        memset(messages, 0, sizeof messages);
        for (int i = 0; i < BATCH; i++) {
            if (!d->spare[i]) d->spare[i] = fresh(d);
            vectors[i] = (struct iovec){d->spare[i]->data, d->frame_bytes};
            messages[i].msg_hdr = (struct msghdr){&from[i], sizeof from[i], &vectors[i], 1,
                                                  control[i], sizeof control[i], 0};
        }
        int got = recvmmsg(d->in, messages, BATCH, MSG_DONTWAIT, NULL);
        if (got <= 0) return;        // EAGAIN, or ENETDOWN while an interface goes away
        uint64_t mono = now_ns(CLOCK_MONOTONIC), wall = now_ns(CLOCK_REALTIME);
        for (int i = 0; i < got; i++) {
            struct frame *f = d->spare[i];
            if (from[i].sll_pkttype == PACKET_OUTGOING || (messages[i].msg_hdr.msg_flags & MSG_TRUNC))
                continue;            // our own, or larger than the link's MTU allows
            uint64_t stamp = receive_stamp(&messages[i].msg_hdr, wall);
            uint64_t age = wall > stamp ? wall - stamp : 0;
            f->length = messages[i].msg_len;
            if (admit(d, f, mono - (age < BILLION ? age : 0))) {   // a stepped clock is no age
                d->in_flight++;
                push(f);
                d->spare[i] = NULL;
            }
        }
        if (got < BATCH) return;
    }
}

// --- frames out

static void flush_batch(struct direction *d)
{
    struct mmsghdr messages[BATCH];
    struct iovec vectors[BATCH];
    memset(messages, 0, sizeof messages);
    for (int i = 0; i < d->batched; i++) {
        vectors[i] = (struct iovec){d->batch[i]->data, d->batch[i]->length};
        messages[i].msg_hdr.msg_iov = &vectors[i];
        messages[i].msg_hdr.msg_iovlen = 1;
    }
    for (int done = 0; done < d->batched;) {
        int sent = sendmmsg(d->out, messages + done, (unsigned)(d->batched - done), MSG_DONTWAIT);
        if (sent < 0 && errno == EINTR) continue;
        if (sent <= 0) { d->unsendable++; done++; continue; }
        for (int i = done; i < done + sent; i++) d->bytes += d->batch[i]->length;
        d->sent += (uint64_t)sent;
        done += sent;
    }
    for (int i = 0; i < d->batched; i++) free(d->batch[i]);
    d->in_flight -= (uint32_t)d->batched;
    d->batched = 0;
}

static void send_due(void)
{
    uint64_t now = now_ns(CLOCK_MONOTONIC);
    while (heap_size && heap[0]->due <= now + EARLY) {
        struct frame *f = pop();
        struct direction *d = f->direction;
        if (now > f->due) {
            d->late += now - f->due > LATE;
            if (now - f->due > d->late_max) d->late_max = now - f->due;
        }
        d->batch[d->batched++] = f;
        if (d->batched == BATCH) flush_batch(d);
    }
    for (int i = 0; i < direction_count; i++)
        if (directions[i].batched) flush_batch(&directions[i]);
}

// --- set-up and reports

static int open_interface(const char *name)
{
    int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0), on = 1, size = SOCKET_BUFFER;
    unsigned index = if_nametoindex(name);
    if (fd < 0 || !index) die(name);
    struct sockaddr_ll address = {.sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_ALL),
                                  .sll_ifindex = (int)index};
    struct packet_mreq promiscuous = {.mr_ifindex = (int)index, .mr_type = PACKET_MR_PROMISC};
    setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof size);
    setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof size);
    setsockopt(fd, SOL_SOCKET, SO_TIMESTAMPNS, &on, sizeof on);
    setsockopt(fd, SOL_PACKET, PACKET_QDISC_BYPASS, &on, sizeof on);
    setsockopt(fd, SOL_PACKET, PACKET_IGNORE_OUTGOING, &on, sizeof on);
    if (setsockopt(fd, SOL_PACKET, PACKET_ADD_MEMBERSHIP, &promiscuous, sizeof promiscuous) < 0 ||
        bind(fd, (struct sockaddr *)&address, sizeof address) < 0)
        die(name);
    return fd;
}

static void read_links(void)
{
    struct direction d;
    uint64_t link_seed;
    memset(&d, 0, sizeof d);
    while (direction_count < 2 * MAX_LINKS &&
           scanf("%15s %15s %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu32 " %" SCNu64,
                 d.from, d.to, &d.delay, &d.jitter, &d.loss, &d.rate, &d.queue, &d.frame_bytes, &link_seed) == 9) {
        struct direction *there = &directions[direction_count++], *back = &directions[direction_count++];
        *there = d;
        there->in = open_interface(d.from);
        there->out = open_interface(d.to);
        *back = d;
        memcpy(back->from, d.to, sizeof d.to);
        memcpy(back->to, d.from, sizeof d.from);
        back->in = there->out;
        back->out = there->in;
        seed(there->random, 2 * link_seed);
        seed(back->random, 2 * link_seed + 1);
    }
    if (!direction_count || !feof(stdin)) { errno = EINVAL; die("standard input"); }
}

static void report(void)
{
    printf("[");
    for (int i = 0; i < direction_count; i++) {
        struct direction *d = &directions[i];
        struct tpacket_stats kernel = {0};
        socklen_t length = sizeof kernel;
        static uint64_t missed[2 * MAX_LINKS];   // the kernel's counter restarts when it is read
        if (!getsockopt(d->in, SOL_PACKET, PACKET_STATISTICS, &kernel, &length)) missed[i] += kernel.tp_drops;
        printf("%s{\"from\":\"%s\",\"to\":\"%s\",\"received\":%" PRIu64 ",\"sent\":%" PRIu64 ",\"bytes\":%" PRIu64
               ",\"lost\":%" PRIu64 ",\"queue_dropped\":%" PRIu64 ",\"unsendable\":%" PRIu64 ",\"missed\":%" PRIu64
               ",\"late\":%" PRIu64 ",\"late_max_us\":%.1f}",
               i ? "," : "", d->from, d->to, d->received, d->sent, d->bytes, d->lost, d->queue_dropped,
               d->unsendable, missed[i], d->late, (double)d->late_max / 1e3);
    }
    printf("]\n");
    fflush(stdout);
}

// A relay that waits for its turn adds to every delay: go before everything, probers (10) and agents (5)
// too, which a packet costs a few microseconds.
static const char *hurry(void)
{
    struct sched_param priority = {.sched_priority = 20};
    if (!sched_setscheduler(0, SCHED_RR, &priority)) return "rr";
    return setpriority(PRIO_PROCESS, 0, -20) ? "other" : "nice";
}

int main(void)
{
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGUSR1);
    sigprocmask(SIG_BLOCK, &signals, NULL);
    read_links();

    int epoll = epoll_create1(EPOLL_CLOEXEC), timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    int signal_fd = signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK);
    enum { TIMER = 2 * MAX_LINKS, SIGNAL };
    for (int i = 0; i < direction_count; i++) {
        struct epoll_event event = {.events = EPOLLIN, .data.u32 = (uint32_t)i};
        if (epoll_ctl(epoll, EPOLL_CTL_ADD, directions[i].in, &event)) die("epoll");
    }
    struct epoll_event timer_event = {.events = EPOLLIN | EPOLLET, .data.u32 = TIMER};
    struct epoll_event signal_event = {.events = EPOLLIN, .data.u32 = SIGNAL};
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, timer, &timer_event) || epoll_ctl(epoll, EPOLL_CTL_ADD, signal_fd, &signal_event))
        die("epoll");
    printf("ready %s\n", hurry());
    fflush(stdout);

    for (uint64_t armed = 0;;) {
        uint64_t next = heap_size ? heap[0]->due : 0;
        if (next != armed) {
            struct itimerspec at = {.it_value = {(time_t)(next / BILLION), (long)(next % BILLION)}};
            timerfd_settime(timer, TFD_TIMER_ABSTIME, &at, NULL);
            armed = next;
        }
        struct epoll_event events[BATCH];
        int ready = epoll_wait(epoll, events, BATCH, -1);
        for (int i = 0; i < ready; i++) {
            uint32_t which = events[i].data.u32;
            if (which == TIMER) {
                armed = 0;           // it has fired; edge-triggered, so nothing to read
            } else if (which == SIGNAL) {
                struct signalfd_siginfo info;
                if (read(signal_fd, &info, sizeof info) != sizeof info) continue;
                report();
                if (info.ssi_signo == SIGTERM) return 0;
            } else {
                receive(&directions[which]);
            }
        }
        send_due();
    }
}
