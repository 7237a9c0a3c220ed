/* The pure parts: members' texts, assembling a snapshot, and the proof of leadership behind a read. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "raft/assembly.h"
#include "raft/codec.h"
#include "raft/member.h"
#include "raft/readindex.h"

/* ---- members ---- */

static struct replica_member member_of(const char *name, const char *address)
{
    struct replica_member member = {.role = REPLICA_VOTER};
    snprintf(member.name, sizeof member.name, "%s", name);
    snprintf(member.address, sizeof member.address, "%s", address);
    memset(member.public_key, 0xa5, KEY_BYTES);
    return member;
}

static void test_members_survive_as_text(void **state)
{
    struct replica_member in = member_of("ctl-1.example", "tcp://[fd00::1]:7000"), out = {.role = REPLICA_VOTER};
    char text[MEMBER_TEXT_MAX], name[WIRE_PRINCIPAL_MAX];
    struct err err;
    (void)state;
    assert_int_equal(member_format(&in, &err, text), 0);
    assert_int_equal(member_parse(text, &err, &out), 0);
    assert_memory_equal(&in, &out, sizeof in);
    member_name(text, name);
    assert_string_equal(name, "ctl-1.example");
    text[strlen(text) - 1] = '\0';
    assert_int_equal(member_parse(text, &err, &out), -1);
}

static void test_bad_members_are_refused(void **state)
{
    static const char *const bad[] = {"", "a", "a|b", "a|tcp://1.2.3.4:5|short", "|tcp://1.2.3.4:5|%s",
        "a|1.2.3.4:5|%s", "a|tcp://1.2.3.4|%s", "a|tcp://1.2.3.4:0|%s", "a|tcp://1.2.3.4:65535|%s",
        "a|tcp://1.2.3.4:5x|%s", "a|tcp://:5|%s", "a b|tcp://1.2.3.4:5|%s", "a|b|tcp://1.2.3.4:5|%s"};
    struct replica_member out, list[2];
    char text[512], key[KEY_TEXT];
    uint8_t zero[KEY_BYTES] = {0};
    struct err err;
    (void)state;
    key_format(zero, key);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        const char *percent = strstr(bad[i], "%s");
        snprintf(text, sizeof text, "%.*s%s", percent ? (int)(percent - bad[i]) : 200, bad[i], percent ? key : "");
        if (member_parse(text, &err, &out) == 0)
            fail_msg("taken: %s", text);
    }
    list[0] = member_of("a", "tcp://1.2.3.4:5");
    list[1] = member_of("b", "tcp://1.2.3.4:5");
    assert_int_equal(member_check_all(list, 2, &err), -1);
    list[1] = member_of("a", "tcp://1.2.3.4:7");
    assert_int_equal(member_check_all(list, 2, &err), -1);
    list[1] = member_of("b", "tcp://1.2.3.4:7");
    assert_int_equal(member_check_all(list, 2, &err), 0);
    assert_int_equal(member_check_all(list, 0, &err), -1);
    assert_true(member_id("a") != member_id("b") && member_id("a") == member_id("a"));
}

static void test_the_snapshot_port_is_the_next_one(void **state)
{
    char out[WIRE_ADDRESS_MAX];
    struct err err;
    (void)state;
    assert_int_equal(member_snapshot_address("tcp://10.1.2.3:7099", &err, out), 0);
    assert_string_equal(out, "tcp://10.1.2.3:7100");
    assert_int_equal(member_snapshot_address("tcp://10.1.2.3:65535", &err, out), -1);
}

/* ---- assembling ---- */

struct chunks {
    struct raft_configuration configuration;
    struct codec_snapshot head;
    uint8_t data[1000];
};

static void chunks_init(struct chunks *chunks)
{
    struct replica_member member = member_of("c1", "tcp://1.2.3.4:5");
    struct raft_install_snapshot snapshot = {
        .version = 1, .term = 3, .last_index = 50, .last_term = 2, .conf_index = 7};
    char text[MEMBER_TEXT_MAX];
    struct err err;
    raft_configuration_init(&chunks->configuration);
    assert_int_equal(member_format(&member, &err, text), 0);
    assert_int_equal(raft_configuration_add(&chunks->configuration, member_id("c1"), text, RAFT_VOTER), 0);
    snapshot.conf = chunks->configuration;
    codec_encode_snapshot(&snapshot, &chunks->head);
    for (size_t i = 0; i < sizeof chunks->data; i++)
        chunks->data[i] = (uint8_t)(i * 7);
}

static void chunks_free(struct chunks *chunks)
{
    codec_snapshot_free(&chunks->head);
    raft_configuration_close(&chunks->configuration);
}

/* The chunk at `offset` of `len` bytes; what the assembly wants next, or UINT64_MAX if it refuses. */
static uint64_t feed(struct assembly *assembly, struct chunks *chunks, uint64_t transfer, uint64_t offset, size_t len)
{
    Drover__RaftChunk chunk = DROVER__RAFT_CHUNK__INIT;
    uint64_t next = 0;
    struct err err;
    chunk.transfer = transfer;
    chunk.total_bytes = sizeof chunks->data;
    chunk.offset = offset;
    chunk.data = (ProtobufCBinaryData){.data = chunks->data + (offset < 1000 ? offset : 0), .len = len};
    chunk.snapshot = offset == 0 ? &chunks->head.message : NULL;
    if (assembly_take(assembly, "c1", &chunk, &err, &next)) {
        assert_int_equal(err.code, ERR_PROTOCOL);
        return UINT64_MAX;
    }
    return next;
}

static void test_chunks_make_a_snapshot(void **state)
{
    struct assembly assembly = {0};
    struct raft_message out;
    struct chunks chunks;
    (void)state;
    chunks_init(&chunks);
    assert_int_equal(feed(&assembly, &chunks, 1, 400, 400), 0); /* the beginning was missed */
    assert_int_equal(feed(&assembly, &chunks, 1, 0, 400), 400);
    assert_int_equal(feed(&assembly, &chunks, 1, 0, 400), 400);   /* repeated */
    assert_int_equal(feed(&assembly, &chunks, 1, 800, 200), 400); /* reordered */
    assert_int_equal(feed(&assembly, &chunks, 1, 400, 400), 800);
    assert_int_equal(feed(&assembly, &chunks, 9, 800, 200), 0); /* another transfer, from its middle */
    assert_false(assembly_complete(&assembly));
    assert_int_equal(feed(&assembly, &chunks, 1, 800, 200), 1000);
    assert_true(assembly_complete(&assembly));
    assembly_release(&assembly, &out);
    assert_int_equal(out.type, RAFT_INSTALL_SNAPSHOT);
    assert_int_equal(out.install_snapshot.last_index, 50);
    assert_int_equal(out.install_snapshot.conf.n, 1);
    assert_int_equal(out.install_snapshot.data.len, 1000);
    assert_memory_equal(out.install_snapshot.data.base, chunks.data, 1000);
    codec_message_free(&out);

    assert_int_equal(feed(&assembly, &chunks, 2, 0, 400), 400);
    assert_int_equal(feed(&assembly, &chunks, 3, 0, 100), 100); /* a new one takes its place */
    assert_int_equal(feed(&assembly, &chunks, 3, 100, 901), UINT64_MAX);
    assert_int_equal(feed(&assembly, &chunks, 3, 1001, 1), UINT64_MAX);
    assert_int_equal(feed(&assembly, &chunks, 3, 100, 0), UINT64_MAX);
    assert_int_equal(assembly.data.len, 100);
    assembly_clear(&assembly);
    chunks_free(&chunks);
}

static void test_spoilt_heads_are_refused(void **state)
{
    struct assembly assembly = {0};
    struct chunks chunks;
    (void)state;
    chunks_init(&chunks);
    Drover__RaftSnapshot good = chunks.head.message;
#define spoil(...)                                                                                                     \
    do {                                                                                                               \
        chunks.head.message = good;                                                                                    \
        __VA_ARGS__;                                                                                                   \
        assert_true(feed(&assembly, &chunks, 1, 0, 400) == UINT64_MAX);                                                \
    } while (0)
    spoil(chunks.head.message.term = 0);
    spoil(chunks.head.message.last_index = 0);
    spoil(chunks.head.message.last_term = 4);
    spoil(chunks.head.message.configuration_index = 51);
    spoil(chunks.head.message.n_servers = 0);
    spoil(chunks.head.servers[0].id++);
    chunks.head.servers[0].id--;
    spoil(chunks.head.servers[0].role = 3);
    chunks.head.servers[0].role = 1;
    char *address = chunks.head.servers[0].address;
    spoil(chunks.head.servers[0].address = (char[]){"nonsense"});
    chunks.head.servers[0].address = address;
    assert_false(assembly.active);
    chunks_free(&chunks);
}

/* ---- reads ---- */

struct reads {
    struct readindex *index;
    struct readindex_view view;
    uint64_t round;
    unsigned asked, done, failed;
};

static void reads_ask(void *user, raft_id voter, uint64_t round, raft_term term)
{
    struct reads *reads = user;
    assert_true(voter == 2 || voter == 3);
    assert_int_equal(term, reads->view.term);
    reads->round = round;
    reads->asked++;
}

static void reads_done(void *user, void *read, const struct err *err)
{
    struct reads *reads = user;
    (void)read;
    reads->done += !err;
    reads->failed += err != NULL;
}

static void reads_init(struct reads *reads)
{
    *reads = (struct reads){
        .view = {.term = 5, .commit = 10, .applied = 10, .self = 1, .voters = {1, 2, 3}, .voter_count = 3}};
    reads->index = readindex_new(100, 50, reads_ask, reads_done, reads);
}

static void test_a_read_waits_for_a_majority_and_for_apply(void **state)
{
    struct reads reads;
    (void)state;
    reads_init(&reads);
    reads.view.commit = 12;
    readindex_add(reads.index, &reads);
    readindex_step(reads.index, &reads.view);
    assert_int_equal(reads.asked, 2);
    readindex_answer(reads.index, 2, reads.round - 1, 5); /* late, of an earlier round */
    readindex_answer(reads.index, 2, reads.round, 6);     /* it knows a newer leader */
    readindex_answer(reads.index, 9, reads.round, 5);     /* no voter */
    readindex_step(reads.index, &reads.view);
    assert_int_equal(reads.done, 0);
    readindex_add(reads.index, &reads); /* came after the question: not covered by it */
    readindex_answer(reads.index, 3, reads.round, 4);
    readindex_step(reads.index, &reads.view);
    assert_int_equal(reads.done, 0); /* proved, but 12 is not applied */
    reads.view.applied = 12;
    readindex_step(reads.index, &reads.view);
    assert_int_equal(reads.done, 1);
    readindex_step(reads.index, &reads.view);
    assert_int_equal(reads.asked, 4);
    readindex_answer(reads.index, 2, reads.round, 5);
    readindex_step(reads.index, &reads.view);
    assert_int_equal(reads.done, 2);
    assert_true(readindex_idle(reads.index));
    readindex_free(reads.index);
}

static void test_questions_are_repeated_and_a_new_term_starts_over(void **state)
{
    struct reads reads;
    struct err err;
    (void)state;
    reads_init(&reads);
    readindex_add(reads.index, &reads);
    readindex_step(reads.index, &reads.view);
    reads.view.now_ms = 49;
    readindex_step(reads.index, &reads.view);
    assert_int_equal(reads.asked, 2);
    reads.view.now_ms = 50;
    readindex_step(reads.index, &reads.view);
    assert_int_equal(reads.asked, 4);
    uint64_t round = reads.round;
    reads.view.term = 0; /* leads a new term, whose barrier is not applied */
    readindex_step(reads.index, &reads.view);
    readindex_answer(reads.index, 2, round, 5);
    reads.view.term = 7;
    readindex_step(reads.index, &reads.view);
    assert_int_equal(reads.done, 0);
    assert_true(reads.round > round);
    err_set(&err, ERR_NOT_LEADER, "lost");
    readindex_fail(reads.index, &err);
    assert_int_equal(reads.failed, 1);
    readindex_free(reads.index);
}

static void test_a_lone_voter_proves_itself(void **state)
{
    struct reads reads;
    (void)state;
    reads_init(&reads);
    reads.view.voter_count = 1;
    readindex_add(reads.index, &reads);
    readindex_step(reads.index, &reads.view);
    assert_int_equal(reads.done, 1);
    assert_int_equal(reads.asked, 0);
    reads.view.self = 9; /* leads without a vote: it is being removed */
    readindex_add(reads.index, &reads);
    readindex_free(reads.index);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_members_survive_as_text),
        cmocka_unit_test(test_bad_members_are_refused),
        cmocka_unit_test(test_the_snapshot_port_is_the_next_one),
        cmocka_unit_test(test_chunks_make_a_snapshot),
        cmocka_unit_test(test_spoilt_heads_are_refused),
        cmocka_unit_test(test_a_read_waits_for_a_majority_and_for_apply),
        cmocka_unit_test(test_questions_are_repeated_and_a_new_term_starts_over),
        cmocka_unit_test(test_a_lone_voter_proves_itself),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
