#include "hostd/heard.h"

#include <net/ethernet.h>
#include <netinet/in.h>
#include <netpacket/packet.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mac.h"
#include "base/packet.h"

#define FILE_BYTES_MAX (NEIGHBOURS_MAX * NEIGHBOUR_TEXT_MAX)
#define FRAMES_AT_ONCE 16
#define RECENT         16 /* addresses that are known to be in the file */

struct ear {
    struct ear *next;
    struct heard *heard;
    struct packet *packet;
    uint8_t mac[6];
    struct neighbour recent[RECENT];
    size_t recent_next;
};

struct heard {
    uv_loop_t *loop;
    char *file;
    struct ear *ears;
};

/* The kernel wakes us for ARP and neighbour discovery only: type ARP, or IPv6 with ICMPv6 type 135 or 136 behind it. */
static struct sock_filter filter[] = {
    BPF_STMT(BPF_LD | BPF_H | BPF_ABS, 12),
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ETHERTYPE_ARP, 6, 0),
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ETHERTYPE_IPV6, 0, 6),
    BPF_STMT(BPF_LD | BPF_B | BPF_ABS, 20),
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, IPPROTO_ICMPV6, 0, 4),
    BPF_STMT(BPF_LD | BPF_B | BPF_ABS, 54),
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 135, 1, 0),
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 136, 0, 1),
    BPF_STMT(BPF_RET | BPF_K, 128),
    BPF_STMT(BPF_RET | BPF_K, 0),
};

struct heard *heard_open(uv_loop_t *loop, const char *file)
{
    struct heard *heard = mem_zalloc(sizeof *heard);
    heard->loop = loop;
    heard->file = mem_strdup(file);
    return heard;
}

bool heard_add(struct buf *text, const struct neighbour *n)
{
    char line[NEIGHBOUR_TEXT_MAX];
    size_t of_card = 0;
    const char *at = buf_str(text);
    while (*at) {
        struct neighbour known;
        struct err ignored; /* a line that makes no sense is nobody's */
        size_t len = strcspn(at, "\n");
        if (neighbour_parse(at, len, &ignored, &known) == 0) {
            if (neighbour_equal(&known, n))
                return false;
            of_card += memcmp(known.mac, n->mac, sizeof n->mac) == 0;
        }
        at += len + (at[len] == '\n');
    }
    if (of_card >= HEARD_PER_NIC)
        return false;
    buf_printf(text, "%s\n", neighbour_print(n, line));
    return true;
}

static void ear_learn(struct ear *ear, const struct neighbour *n)
{
    cleanup_buf struct buf text = {0};
    struct err err;
    char line[NEIGHBOUR_TEXT_MAX];
    for (size_t i = 0; i < RECENT; i++)
        if (neighbour_equal(&ear->recent[i], n))
            return;
    ear->recent[ear->recent_next++ % RECENT] = *n;
    if (file_read(ear->heard->file, FILE_BYTES_MAX, &err, &text) < 0 && err.code != ERR_NOT_FOUND)
        buf_clear(&text); /* it is ours, and can be learned again */
    if (!heard_add(&text, n))
        return;
    log_event(LOG_INFO, "address.heard", "file=%s line=%s", ear->heard->file, LOG_QUOTE(neighbour_print(n, line)));
    if (file_write(ear->heard->file, text.data, text.len, 0600, &err) < 0)
        log_event(LOG_WARN, "address.unsaved", "reason=%s", LOG_QUOTE(err.message));
}

static void ear_ready(void *user, int fd)
{
    struct ear *ear = user;
    for (int i = 0; i < FRAMES_AT_ONCE; i++) {
        uint8_t frame[128];
        struct sockaddr_ll from;
        socklen_t from_len = sizeof from;
        struct neighbour n;
        ssize_t len = recvfrom(fd, frame, sizeof frame, MSG_DONTWAIT, (struct sockaddr *)&from, &from_len);
        if (len < 0)
            return;
        if (from.sll_pkttype != PACKET_OUTGOING && neighbour_learn(frame, (size_t)len, &n) &&
            memcmp(n.mac, ear->mac, sizeof n.mac) == 0)
            ear_learn(ear, &n);
    }
}

void heard_listen(struct heard *heard, const char *tap, const char *mac)
{
    const struct sock_fprog program = {sizeof filter / sizeof *filter, filter};
    struct ear *ear = mem_zalloc(sizeof *ear);
    struct err err;
    int rc = mac_parse(mac, ear->mac) ? packet_open(heard->loop, tap, &program, ear_ready, ear, &err, &ear->packet)
                                      : err_set(&err, ERR_INVALID, "'%.32s' is not a MAC address", mac);
    if (rc < 0) {
        log_event(LOG_WARN, "tap.not_heard", "tap=%s reason=%s", tap, LOG_QUOTE(err.message));
        free(ear);
        return;
    }
    ear->heard = heard;
    ear->next = heard->ears;
    heard->ears = ear;
}

void heard_close(struct heard *heard)
{
    if (!heard)
        return;
    for (struct ear *ear = heard->ears, *next; ear; ear = next) {
        next = ear->next;
        packet_close(ear->packet);
        free(ear);
    }
    free(heard->file);
    free(heard);
}
