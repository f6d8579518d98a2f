/*
 * What a guest answers beside ICMP: UDP echo and TCP echo on port 7 (RFC 862), and on UDP port 7007
 * its identity: {"boot_id": …, "uptime_ms": …}, by which a run proves that the guest that answers
 * after a migration is the one that answered before. One poll loop, static, no allocation.
 */
#include <arpa/inet.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { ECHO_PORT = 7, IDENTITY_PORT = 7007, CONNECTIONS = 16, BUFFER = 65536 };
enum { UDP_ECHO, UDP_IDENTITY, TCP_LISTEN, FIXED };

static int bound_socket(int type, int port)
{
	struct sockaddr_in6 address = { .sin6_family = AF_INET6, .sin6_port = htons((uint16_t)port) };
	int fd = socket(AF_INET6, type | SOCK_NONBLOCK, 0), zero = 0, one = 1;

	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &zero, sizeof(zero)); /* IPv4 too, RFC 3493 section 3.7 */
	if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof(address)))
		exit(1);
	return fd;
}

static void answer_udp(int fd, char *buffer, int identity, const char *boot_id)
{
	struct sockaddr_storage peer;
	socklen_t peer_length = sizeof(peer);
	ssize_t n = recvfrom(fd, buffer, BUFFER, 0, (struct sockaddr *)&peer, &peer_length);

	if (n < 0)
		return;
	if (identity) {
		struct timespec now;
		clock_gettime(CLOCK_BOOTTIME, &now);
		n = snprintf(buffer, BUFFER, "{\"boot_id\": \"%s\", \"uptime_ms\": %lld}", boot_id,
			     (long long)now.tv_sec * 1000 + now.tv_nsec / 1000000);
	}
	(void)!sendto(fd, buffer, (size_t)n, 0, (struct sockaddr *)&peer, peer_length);
}

/* Echo what came; a connection whose peer does not read loses nothing: the write blocks this loop
   for at most the kernel's buffer, which an echo client drains. */
static int answer_tcp(int fd, char *buffer)
{
	ssize_t n = read(fd, buffer, BUFFER);

	if (n <= 0)
		return -1;
	for (ssize_t done = 0; done < n;) {
		ssize_t written = write(fd, buffer + done, (size_t)(n - done));
		if (written < 0)
			return -1;
		done += written;
	}
	return 0;
}

int main(void)
{
	static char buffer[BUFFER];
	char boot_id[64] = "";
	struct pollfd polled[FIXED + CONNECTIONS];
	FILE *source = fopen("/proc/sys/kernel/random/boot_id", "r");

	if (source && fgets(boot_id, sizeof(boot_id), source))
		boot_id[strcspn(boot_id, "\n")] = '\0';
	for (int i = 0; i < FIXED + CONNECTIONS; i++)
		polled[i] = (struct pollfd){ .fd = -1, .events = POLLIN };
	polled[UDP_ECHO].fd = bound_socket(SOCK_DGRAM, ECHO_PORT);
	polled[UDP_IDENTITY].fd = bound_socket(SOCK_DGRAM, IDENTITY_PORT);
	polled[TCP_LISTEN].fd = bound_socket(SOCK_STREAM, ECHO_PORT);
	listen(polled[TCP_LISTEN].fd, CONNECTIONS);

	while (poll(polled, FIXED + CONNECTIONS, -1) >= 0) {
		if (polled[UDP_ECHO].revents)
			answer_udp(polled[UDP_ECHO].fd, buffer, 0, boot_id);
		if (polled[UDP_IDENTITY].revents)
			answer_udp(polled[UDP_IDENTITY].fd, buffer, 1, boot_id);
		if (polled[TCP_LISTEN].revents) {
			int fd = accept(polled[TCP_LISTEN].fd, NULL, NULL), slot = FIXED;
			while (slot < FIXED + CONNECTIONS && polled[slot].fd >= 0)
				slot++;
			if (slot == FIXED + CONNECTIONS)
				close(fd);
			else
				polled[slot].fd = fd;
		}
		for (int i = FIXED; i < FIXED + CONNECTIONS; i++)
			if (polled[i].fd >= 0 && polled[i].revents && answer_tcp(polled[i].fd, buffer)) {
				close(polled[i].fd);
				polled[i].fd = -1;
			}
	}
	return 1;
}
