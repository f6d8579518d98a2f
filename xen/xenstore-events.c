/*
 * Tells the orchestrator what xenstore sees of a migration, the moment it happens: a domain that is
 * asked to suspend, that has suspended or gone, that is introduced, a back end that connects.
 * libvirt's own events say less and say it later.
 *
 * usage: xenstore-events ADDRESS PORT
 * One UDP datagram an event: "NAME<TAB>PATH<TAB>VALUE". The receiver stamps it on arrival with the
 * machine's monotonic clock; nothing here reads a clock, since dom0's stops with its machine.
 */
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>

#include "xenstore.h"

static const struct { const char *path, *token; } WATCHES[] = {
	{ "@introduceDomain", "introduced" },
	{ "@releaseDomain", "released" }, /* fired when a domain shuts down (also to suspend) and when it dies */
	{ "/local/domain", "domain" },
};

/* Which of the keys under /local/domain are worth a datagram. */
static const char *interesting(const char *path)
{
	static const struct { const char *suffix, *name; } KEYS[] = {
		{ "/control/shutdown", "shutdown-request" },
		{ "/hotplug-status", "hotplug-status" },
	};
	size_t length = strlen(path);

	for (size_t i = 0; i < sizeof(KEYS) / sizeof(*KEYS); i++) {
		size_t n = strlen(KEYS[i].suffix);
		if (length > n && !strcmp(path + length - n, KEYS[i].suffix))
			return KEYS[i].name;
	}
	if (strstr(path, "/backend/vif/") && length > 6 && !strcmp(path + length - 6, "/state"))
		return "backend-state";
	return NULL;
}

int main(int argc, char **argv)
{
	char payload[XENSTORE_PAYLOAD_MAX + 1], path[XENSTORE_PAYLOAD_MAX + 1], line[2 * XENSTORE_PAYLOAD_MAX];
	struct sockaddr_in peer = { .sin_family = AF_INET };
	uint32_t length;

	if (argc != 3 || inet_pton(AF_INET, argv[1], &peer.sin_addr) != 1)
		return 1;
	peer.sin_port = htons((uint16_t)atoi(argv[2]));
	int out = socket(AF_INET, SOCK_DGRAM, 0), watch = xs_open(), read_fd = xs_open();
	if (out < 0 || watch < 0 || read_fd < 0 || connect(out, (struct sockaddr *)&peer, sizeof(peer)))
		return 2;
	for (size_t i = 0; i < sizeof(WATCHES) / sizeof(*WATCHES); i++)
		if (xs_send(watch, XS_WATCH, WATCHES[i].path, WATCHES[i].token, strlen(WATCHES[i].token) + 1))
			return 3;
	for (;;) {
		int type = xs_receive(watch, payload, &length);
		if (type < 0)
			return 4;
		if (type != XS_WATCH_EVENT)
			continue;
		const char *token = payload + strlen(payload) + 1; /* payload: path \0 token \0 */
		if (token >= payload + length)
			continue;
		const char *name = strcmp(token, "domain") ? token : interesting(payload);
		if (!name)
			continue;
		strcpy(path, payload);
		strcpy(line, name); /* the token lies in the payload, which the read below overwrites */
		payload[0] = '\0';
		if (path[0] == '/' && !xs_send(read_fd, XS_READ, path, "", 0) &&
		    xs_receive(read_fd, payload, &length) != XS_READ)
			payload[0] = '\0';
		size_t n = strlen(line);
		n += (size_t)snprintf(line + n, sizeof(line) - n, "\t%s\t%s", path, payload);
		(void)!send(out, line, n, 0);
	}
}
