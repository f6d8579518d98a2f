/*
 * Asks a peer from inside the guest: an ICMP echo, a datagram to the UDP echo port (RFC 862), or both, whenever one
 * is due by the guest's own clock, from boot on. It keeps no record and reads no answer: that clock stands still
 * while the guest is suspended, so what was sent and what came back is told by the captures at the hosts' taps.
 *
 * usage: guest-prober TARGET,INTERVAL_NS,FLOW[,FLOW]	a target of IPv4 or IPv6, flows "icmp" and "udp"
 *
 * A probe's number is that of its turn: turn n is due at start + n * interval. One that was missed is never made up
 * for, so numbers may be missing, and nothing is sent in a burst.
 */
#include <arpa/inet.h>
#include <linux/filter.h>
#include <sched.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <time.h>

enum { ECHO_PORT = 7, ICMP_ECHO_REQUEST = 8, ICMPV6_ECHO_REQUEST = 128, FLOWS = 2, PRIORITY = 10 };

/* What captures find a probe by; as in testbed/lab/agents/probes.py. */
struct payload {
	char mark[8];
	uint8_t run[8];
	uint64_t turn;
} __attribute__((packed));

struct echo {
	uint8_t type, code;
	uint16_t checksum, identifier, sequence;
	struct payload payload;
} __attribute__((packed));

static const int64_t SECOND_NS = 1000000000;

static int64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * SECOND_NS + now.tv_nsec;
}

/* RFC 1071; of ICMPv6 the kernel makes the checksum, which covers the addresses. */
static uint16_t checksum(const void *data, size_t octets)
{
	const uint8_t *at = data;
	uint32_t sum = 0;

	for (size_t i = 0; i + 1 < octets; i += 2)
		sum += (uint32_t)at[i] << 8 | at[i + 1];
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return htons((uint16_t)~sum);
}

/* The target, from "192.168.3.10" or "fd00:3::10"; returns its length, 0 if it is neither. */
static socklen_t parse_target(const char *text, struct sockaddr_storage *target)
{
	struct sockaddr_in *four = (struct sockaddr_in *)target;
	struct sockaddr_in6 *six = (struct sockaddr_in6 *)target;

	memset(target, 0, sizeof(*target));
	if (inet_pton(AF_INET, text, &four->sin_addr) == 1) {
		four->sin_family = AF_INET;
		return sizeof(*four);
	}
	if (inet_pton(AF_INET6, text, &six->sin6_addr) == 1) {
		six->sin6_family = AF_INET6;
		return sizeof(*six);
	}
	return 0;
}

/* A socket that only sends: a filter throws away whatever arrives, and the kernel still has a taker for it. */
static int sender(int family, int icmp)
{
	struct sock_filter nothing = BPF_STMT(BPF_RET | BPF_K, 0);
	struct sock_fprog filter = { .len = 1, .filter = &nothing };
	int fd = icmp ? socket(family, SOCK_RAW, family == AF_INET ? IPPROTO_ICMP : IPPROTO_ICMPV6)
		      : socket(family, SOCK_DGRAM, 0);

	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &filter, sizeof(filter)))
		exit(1);
	return fd;
}

static void send_probe(int fd, int icmp, const struct sockaddr_storage *target, socklen_t length, struct echo *echo)
{
	const void *packet = icmp ? (void *)echo : &echo->payload;
	size_t octets = icmp ? sizeof(*echo) : sizeof(echo->payload);

	echo->checksum = 0;
	if (target->ss_family == AF_INET)
		echo->checksum = checksum(echo, sizeof(*echo));
	/* What the kernel does not take (no route yet, no carrier) is not sent; nothing waits for it. */
	(void)!sendto(fd, packet, octets, MSG_DONTWAIT, (const struct sockaddr *)target, length);
}

int main(int argc, char **argv)
{
	struct sockaddr_storage targets[FLOWS], target;
	struct echo echo = { .payload.mark = { 'T', 'B', 'P', 'R', 'O', 'B', 'E', '1' } };
	struct sched_param priority = { .sched_priority = PRIORITY };
	int sockets[FLOWS], icmp[FLOWS], flows = 0;
	char *words = argc == 2 ? argv[1] : "";
	char *address = strtok(words, ","), *interval = strtok(NULL, ","), *flow;
	socklen_t length = address ? parse_target(address, &target) : 0;
	int64_t interval_ns = interval ? atoll(interval) : 0;

	if (!length || interval_ns <= 0)
		return 2;
	for (; flows < FLOWS && (flow = strtok(NULL, ",")); flows++) {
		icmp[flows] = !strcmp(flow, "icmp");
		if (!icmp[flows] && strcmp(flow, "udp"))
			return 2;
		sockets[flows] = sender(target.ss_family, icmp[flows]);
		targets[flows] = target;
		if (!icmp[flows]) /* the port is at the same place in both families */
			((struct sockaddr_in *)&targets[flows])->sin_port = htons(ECHO_PORT);
	}
	echo.type = target.ss_family == AF_INET ? ICMP_ECHO_REQUEST : ICMPV6_ECHO_REQUEST;
	if (getrandom(echo.payload.run, sizeof(echo.payload.run), 0) != sizeof(echo.payload.run))
		return 3;
	memcpy(&echo.identifier, echo.payload.run, sizeof(echo.identifier));
	/* The guest has little else to do, and is late without these; it probes in any case. */
	(void)!mlockall(MCL_CURRENT | MCL_FUTURE);
	(void)!sched_setscheduler(0, SCHED_FIFO, &priority);

	int64_t start_ns = now_ns();
	for (int64_t turn = 0;; turn++) {
		int64_t due_ns = start_ns + turn * interval_ns;
		struct timespec due = { .tv_sec = due_ns / SECOND_NS, .tv_nsec = due_ns % SECOND_NS };

		while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &due, NULL))
			;
		turn = (now_ns() - start_ns) / interval_ns;
		echo.payload.turn = htobe64((uint64_t)turn);
		echo.sequence = htons((uint16_t)turn);
		for (int i = 0; i < flows; i++)
			send_probe(sockets[i], icmp[i], &targets[i], length, &echo);
	}
}
