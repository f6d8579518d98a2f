/* A minimal xenstore client over xenstored's socket (wire format: xen/include/public/io/xs_wire.h). */
#ifndef TESTBED_XENSTORE_H
#define TESTBED_XENSTORE_H

#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define XENSTORE_SOCKET "/var/run/xenstored/socket"
#define XENSTORE_PAYLOAD_MAX 4096

enum { XS_READ = 2, XS_WATCH = 4, XS_WRITE = 11, XS_WATCH_EVENT = 15, XS_ERROR = 16 };

struct xs_header { uint32_t type, request, transaction, length; };

static int xs_open(void)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX, .sun_path = XENSTORE_SOCKET };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0) {
		close(fd);
		fd = -1;
	}
	return fd;
}

static int xs_read_full(int fd, void *buffer, size_t length)
{
	for (size_t done = 0; done < length;) {
		ssize_t n = read(fd, (char *)buffer + done, length - done);
		if (n <= 0)
			return -1;
		done += n;
	}
	return 0;
}

/* Send a request of two strings; `second` is sent as given (with or without its zero byte). */
static int xs_send(int fd, uint32_t type, const char *first, const char *second, size_t second_length)
{
	char message[sizeof(struct xs_header) + XENSTORE_PAYLOAD_MAX];
	size_t first_length = strlen(first) + 1;
	struct xs_header header = { type, 0, 0, (uint32_t)(first_length + second_length) };

	if (first_length + second_length > XENSTORE_PAYLOAD_MAX)
		return -1;
	memcpy(message, &header, sizeof(header));
	memcpy(message + sizeof(header), first, first_length);
	memcpy(message + sizeof(header) + first_length, second, second_length);
	size_t total = sizeof(header) + header.length;
	return write(fd, message, total) == (ssize_t)total ? 0 : -1;
}

/* Receive one message; the payload is zero-terminated. Returns its type, or -1. */
static int xs_receive(int fd, char payload[XENSTORE_PAYLOAD_MAX + 1], uint32_t *length)
{
	struct xs_header header;

	if (xs_read_full(fd, &header, sizeof(header)) || header.length > XENSTORE_PAYLOAD_MAX ||
	    xs_read_full(fd, payload, header.length))
		return -1;
	payload[header.length] = '\0';
	if (length)
		*length = header.length;
	return (int)header.type;
}

#endif
