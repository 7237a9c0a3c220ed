/* Messages between members: round trips, what is cut where, and everything a hostile one could carry. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "raft/codec.h"
#include "raft/entry.h"
#include "raft/member.h"

static void make_member(struct replica_member *member, const char *name, unsigned port)
{
    memset(member, 0, sizeof *member);
    snprintf(member->name, sizeof member->name, "%s", name);
    snprintf(member->address, sizeof member->address, "tcp://10.0.0.1:%u", port);
    memset(member->public_key, (int)port, KEY_BYTES);
    member->role = REPLICA_VOTER;
}

static struct raft_buffer change_entry(unsigned members)
{
    struct raft_configuration configuration;
    struct replica_member member;
    struct raft_buffer buf;
    struct err err;
    char text[MEMBER_TEXT_MAX], name[16];
    raft_configuration_init(&configuration);
    for (unsigned i = 0; i < members; i++) {
        snprintf(name, sizeof name, "m%u", i);
        make_member(&member, name, 100 + 2 * i);
        assert_int_equal(member_format(&member, &err, text), 0);
        assert_int_equal(raft_configuration_add(&configuration, member_id(name), text, RAFT_VOTER), 0);
    }
    assert_int_equal(raft_configuration_encode(&configuration, &buf), 0);
    raft_configuration_close(&configuration);
    return buf;
}

static struct raft_entry make_entry(enum raft_entry_type type, raft_term term, size_t len)
{
    struct raft_entry entry = {.type = type, .term = term};
    uint8_t *data = calloc(1, len + 1);
    memset(data, (int)len, len);
    if (type == RAFT_COMMAND)
        entry.buf = entry_wrap(data, len);
    else if (type == RAFT_CHANGE)
        entry.buf = change_entry((unsigned)len);
    else
        entry.buf = (struct raft_buffer){.base = raft_calloc(1, 8), .len = 8};
    free(data);
    return entry;
}

static void free_entries(struct raft_entry *entries, size_t n)
{
    for (size_t i = 0; i < n; i++)
        raft_free(entries[i].buf.base);
}

static size_t pack(const struct raft_message *message, size_t first, size_t count, uint8_t **out)
{
    struct codec_outgoing outgoing = {0};
    codec_encode(message, first, count, &outgoing);
    size_t len = drover__raft_message__get_packed_size(&outgoing.message);
    *out = malloc(len + 1);
    drover__raft_message__pack(&outgoing.message, *out);
    codec_outgoing_free(&outgoing);
    return len;
}

/* Through the codec and back; fails the test if it is refused. */
static struct raft_message round_trip(const struct raft_message *in, size_t first, size_t count)
{
    struct raft_message out;
    struct err err = {0};
    uint8_t *bytes;
    size_t len = pack(in, first, count, &bytes);
    if (codec_decode(bytes, len, &err, &out))
        fail_msg("%s", err.message);
    free(bytes);
    return out;
}

static void test_small_messages_survive(void **state)
{
    struct raft_message in = {.type = RAFT_REQUEST_VOTE,
        .request_vote = {.version = 2,
            .term = 5,
            .last_log_index = 9,
            .last_log_term = 4,
            .disrupt_leader = true,
            .pre_vote = true}};
    (void)state;
    struct raft_message out = round_trip(&in, 0, 0);
    assert_int_equal(out.type, RAFT_REQUEST_VOTE);
    assert_memory_equal(&out.request_vote, &in.request_vote, sizeof in.request_vote);

    in = (struct raft_message){.type = RAFT_REQUEST_VOTE_RESULT,
        .request_vote_result = {
            .version = 3, .term = 6, .vote_granted = true, .pre_vote = true, .features = 1, .capacity = 65535}};
    out = round_trip(&in, 0, 0);
    assert_int_equal(out.type, RAFT_REQUEST_VOTE_RESULT);
    assert_int_equal(out.request_vote_result.capacity, 65535);
    assert_int_equal(out.request_vote_result.features, 1);
    assert_true(out.request_vote_result.vote_granted && out.request_vote_result.pre_vote);

    in = (struct raft_message){.type = RAFT_APPEND_ENTRIES_RESULT,
        .append_entries_result = {
            .version = 1, .term = 7, .rejected = 12, .last_log_index = 11, .features = 2, .capacity = 3}};
    out = round_trip(&in, 0, 0);
    assert_int_equal(out.type, RAFT_APPEND_ENTRIES_RESULT);
    assert_int_equal(out.append_entries_result.rejected, 12);
    assert_int_equal(out.append_entries_result.last_log_index, 11);
    assert_int_equal(out.append_entries_result.features, 2);

    in = (struct raft_message){
        .type = RAFT_TIMEOUT_NOW, .timeout_now = {.version = 1, .term = 8, .last_log_index = 3, .last_log_term = 2}};
    out = round_trip(&in, 0, 0);
    assert_int_equal(out.type, RAFT_TIMEOUT_NOW);
    assert_int_equal(out.timeout_now.last_log_index, 3);
    assert_int_equal(out.timeout_now.last_log_term, 2);
}

/* libraft says "your term is old" with whatever was on its stack as last index. */
static void test_an_unset_index_does_not_cost_the_answer(void **state)
{
    struct raft_message in = {.type = RAFT_APPEND_ENTRIES_RESULT,
        .append_entries_result = {.version = 1, .term = 7, .rejected = 12, .last_log_index = UINT64_MAX}};
    (void)state;
    struct raft_message out = round_trip(&in, 0, 0);
    assert_int_equal(out.append_entries_result.term, 7);
    in.append_entries_result.last_log_index = 500;
    out = round_trip(&in, 0, 0);
    assert_int_equal(out.append_entries_result.last_log_index, 11);
}

static void test_entries_survive_in_one_batch(void **state)
{
    struct raft_entry entries[4] = {make_entry(RAFT_CHANGE, 2, 3), make_entry(RAFT_COMMAND, 2, 0),
        make_entry(RAFT_BARRIER, 3, 0), make_entry(RAFT_COMMAND, 3, REPLICA_ENTRY_MAX)};
    struct raft_message in = {.type = RAFT_APPEND_ENTRIES,
        .append_entries = {.version = 1,
            .term = 4,
            .prev_log_index = 10,
            .prev_log_term = 2,
            .leader_commit = 9,
            .entries = entries,
            .n_entries = 4}};
    (void)state;
    struct raft_message out = round_trip(&in, 0, 4);
    const struct raft_append_entries *got = &out.append_entries;
    assert_int_equal(got->n_entries, 4);
    assert_int_equal(got->prev_log_index, 10);
    assert_int_equal(got->leader_commit, 9);
    for (size_t i = 0; i < 4; i++) {
        assert_ptr_equal(got->entries[i].batch, got->entries[0].buf.base);
        assert_int_equal(got->entries[i].type, entries[i].type);
        assert_int_equal(got->entries[i].term, entries[i].term);
        assert_int_equal(got->entries[i].buf.len, entries[i].buf.len);
        assert_memory_equal(got->entries[i].buf.base, entries[i].buf.base, entries[i].buf.len);
    }
    codec_message_free(&out);

    out = round_trip(&in, 2, 2); /* the second half stands on the first */
    assert_int_equal(out.append_entries.prev_log_index, 12);
    assert_int_equal(out.append_entries.prev_log_term, 2);
    assert_int_equal(out.append_entries.n_entries, 2);
    codec_message_free(&out);
    out = round_trip(&in, 4, 0);
    assert_int_equal(out.append_entries.prev_log_index, 14);
    assert_null(out.append_entries.entries);
    free_entries(entries, 4);
}

static void test_parts_end_at_a_mebibyte_and_before_a_configuration(void **state)
{
    struct raft_entry entries[12];
    struct raft_append_entries args = {.entries = entries, .n_entries = 12};
    (void)state;
    for (size_t i = 0; i < 12; i++)
        entries[i] = i == 7 ? make_entry(RAFT_CHANGE, 1, 1) : make_entry(RAFT_COMMAND, 1, REPLICA_ENTRY_MAX - 8);
    assert_int_equal(codec_part(&args, 0), 4);
    assert_int_equal(codec_part(&args, 4), 3);
    assert_int_equal(codec_part(&args, 7), 4); /* the configuration comes first, and others may follow it */
    assert_int_equal(codec_part(&args, 11), 1);
    assert_int_equal(codec_part(&args, 12), 0);
    free_entries(entries, 12);
}

static void expect_refused(const Drover__RaftMessage *message, const char *why)
{
    size_t len = drover__raft_message__get_packed_size(message);
    uint8_t *bytes = malloc(len + 1);
    struct raft_message out;
    struct err err = {0};
    drover__raft_message__pack(message, bytes);
    assert_int_equal(codec_decode(bytes, len, &err, &out), -1);
    assert_int_equal(err.code, ERR_PROTOCOL);
    if (!strstr(err.message, why))
        fail_msg("expected \"%s\" in \"%s\"", why, err.message);
    free(bytes);
}

struct append {
    Drover__RaftMessage message;
    Drover__RaftAppend append;
    uint64_t terms[2];
    uint32_t types[2], lengths[2];
    struct buf data;
};

/* A good message of two commands, for the tests to spoil. */
static void append_init(struct append *a)
{
    struct raft_buffer entry = entry_wrap((const uint8_t *)"hello", 5);
    memset(a, 0, sizeof *a);
    drover__raft_message__init(&a->message);
    drover__raft_append__init(&a->append);
    a->message.version = 1;
    a->message.term = 5;
    a->message.kind_case = DROVER__RAFT_MESSAGE__KIND_APPEND;
    a->message.append = &a->append;
    for (size_t i = 0; i < 2; i++) {
        a->terms[i] = 4;
        a->types[i] = RAFT_COMMAND;
        a->lengths[i] = (uint32_t)entry.len;
        buf_append(&a->data, entry.base, entry.len);
    }
    raft_free(entry.base);
    a->append.prev_index = 3;
    a->append.prev_term = 4;
    a->append.entry_terms = a->terms;
    a->append.entry_types = a->types;
    a->append.entry_lengths = a->lengths;
    a->append.n_entry_terms = a->append.n_entry_types = a->append.n_entry_lengths = 2;
    a->append.data = (ProtobufCBinaryData){.data = a->data.data, .len = a->data.len};
}

#define refused(why, ...)                                                                                              \
    do {                                                                                                               \
        struct append a;                                                                                               \
        append_init(&a);                                                                                               \
        __VA_ARGS__;                                                                                                   \
        expect_refused(&a.message, why);                                                                               \
        buf_free(&a.data);                                                                                             \
    } while (0)

static void test_spoilt_entries_are_refused(void **state)
{
    (void)state;
    refused("no known kind", a.message.kind_case = DROVER__RAFT_MESSAGE__KIND__NOT_SET);
    refused("term out of range", a.message.term = 0);
    refused("term out of range", a.message.term = UINT64_MAX);
    refused("version", a.message.version = 256);
    refused("index and its term", a.append.prev_term = 0);
    refused("index and its term", a.append.prev_index = 0);
    refused("index and its term", a.append.prev_term = 6);
    refused("index and its term", a.append.prev_index = UINT64_MAX);
    refused("arrays", a.append.n_entry_types = 1);
    refused("arrays", a.append.n_entry_lengths = 1);
    refused("out of order", a.terms[0] = 3); /* below prev_term */
    refused("out of order", a.terms[1] = 3);
    refused("out of order", a.terms[1] = 6); /* above the message's */
    refused("bad length", a.lengths[0] = 0);
    refused("bad length", a.lengths[0] = 12);
    refused("bad length", a.lengths[0] = UINT32_MAX - 7);
    refused("add up", a.lengths[0] += 8);
    refused("add up", a.append.data.len -= 8);
    refused("unknown type", a.types[0] = 0);
    refused("unknown type", a.types[0] = 4);
    refused("a command is malformed", a.data.data[0] ^= 1);  /* magic */
    refused("a command is malformed", a.data.data[4] = 200); /* length */
    refused("barrier of unusual size", a.types[0] = RAFT_BARRIER);
    refused("configuration entry is malformed", a.types[0] = RAFT_CHANGE);
    refused("behind another one", a.types[1] = RAFT_CHANGE);
}

static void test_spoilt_configurations_are_refused(void **state)
{
    struct raft_entry entry = make_entry(RAFT_CHANGE, 4, 2);
    (void)state;
    /* Every byte changed, every length: never more than a refusal (the sanitizers watch). A changed key is still a key.
     */
    for (size_t len = 8; len <= entry.buf.len; len += 8) {
        for (size_t at = 0; at < len; at++) {
            struct raft_message out;
            struct append a;
            struct err err;
            append_init(&a);
            a.types[0] = RAFT_CHANGE;
            a.lengths[0] = (uint32_t)len;
            a.append.n_entry_terms = a.append.n_entry_types = a.append.n_entry_lengths = 1;
            uint8_t *data = malloc(len); /* exactly, so that one byte too far is seen */
            memcpy(data, entry.buf.base, len);
            data[at] ^= 0x5a;
            a.append.data = (ProtobufCBinaryData){.data = data, .len = len};
            size_t size = drover__raft_message__get_packed_size(&a.message);
            uint8_t *bytes = malloc(size);
            drover__raft_message__pack(&a.message, bytes);
            if (codec_decode(bytes, size, &err, &out) == 0) {
                assert_int_equal(len, entry.buf.len);
                codec_message_free(&out);
            }
            free(bytes);
            free(data);
            buf_free(&a.data);
        }
    }
    raft_free(entry.buf.base);
}

static void test_truncated_messages_are_refused_or_valid(void **state)
{
    struct raft_entry entries[2] = {make_entry(RAFT_CHANGE, 2, 2), make_entry(RAFT_COMMAND, 2, 13)};
    struct raft_message in = {
        .type = RAFT_APPEND_ENTRIES, .append_entries = {.version = 1, .term = 4, .entries = entries, .n_entries = 2}};
    struct raft_message out;
    struct err err;
    uint8_t *bytes;
    (void)state;
    size_t len = pack(&in, 0, 2, &bytes);
    for (size_t cut = 0; cut < len; cut++) {
        uint8_t *exact = malloc(cut + 1);
        memcpy(exact, bytes, cut);
        assert_int_equal(codec_decode(exact, cut, &err, &out), -1);
        free(exact);
    }
    for (size_t at = 0; at < len * 8; at++) {
        bytes[at / 8] ^= (uint8_t)(1u << at % 8);
        if (codec_decode(bytes, len, &err, &out) == 0)
            codec_message_free(&out);
        bytes[at / 8] ^= (uint8_t)(1u << at % 8);
    }
    free(bytes);
    free_entries(entries, 2);
}

static void test_spoilt_results_are_refused(void **state)
{
    Drover__RaftMessage message = DROVER__RAFT_MESSAGE__INIT;
    Drover__RaftAppendResult result = DROVER__RAFT_APPEND_RESULT__INIT;
    Drover__RaftVoteResult vote = DROVER__RAFT_VOTE_RESULT__INIT;
    (void)state;
    message.term = 1;
    message.kind_case = DROVER__RAFT_MESSAGE__KIND_APPEND_RESULT;
    message.append_result = &result;
    result.capacity = 65536;
    expect_refused(&message, "out of range");
    result.capacity = 0;
    result.rejected = 5;
    result.last_index = 5;
    expect_refused(&message, "contradicts");
    message.kind_case = DROVER__RAFT_MESSAGE__KIND_VOTE_RESULT;
    message.vote_result = &vote;
    vote.features = 65536;
    expect_refused(&message, "out of range");
}

static void test_a_wrapped_entry_is_padded(void **state)
{
    uint8_t bytes[32];
    const uint8_t *data;
    size_t len;
    (void)state;
    memset(bytes, 0xee, sizeof bytes);
    for (size_t n = 0; n <= sizeof bytes; n++) {
        struct raft_buffer entry = entry_wrap(bytes, n);
        assert_int_equal(entry.len % 8, 0);
        assert_true(entry_unwrap(&entry, &data, &len));
        assert_int_equal(len, n);
        assert_memory_equal(data, bytes, n);
        entry.len -= 8;
        assert_false(entry_unwrap(&entry, &data, &len));
        raft_free(entry.base);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_small_messages_survive),
        cmocka_unit_test(test_an_unset_index_does_not_cost_the_answer),
        cmocka_unit_test(test_entries_survive_in_one_batch),
        cmocka_unit_test(test_parts_end_at_a_mebibyte_and_before_a_configuration),
        cmocka_unit_test(test_spoilt_entries_are_refused),
        cmocka_unit_test(test_spoilt_configurations_are_refused),
        cmocka_unit_test(test_truncated_messages_are_refused_or_valid),
        cmocka_unit_test(test_spoilt_results_are_refused),
        cmocka_unit_test(test_a_wrapped_entry_is_padded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
