/* Linearizable reads without a write (Ongaro's thesis, section 6.4). libraft has none of it.
 *
 * A leader that has applied an entry of its own term notes its commit index, asks the voters for their terms, and once
 * a majority (itself included) has answered with no newer term, it was still the leader when the question was asked: a
 * read that came before the question may be answered as soon as that commit index is applied.
 *
 * Rounds are numbered, one is under way at a time, and reads that come meanwhile share the next one. Pure but for
 * `ask`: time and raft's state come in with each call. A round that gets no majority is asked again after `retry_ms`;
 * what ends it otherwise is the loss of leadership, which Raft notices by itself. */
#ifndef RAFT_READINDEX_H
#define RAFT_READINDEX_H

#include <raft.h>
#include <stdbool.h>

#include "raft/member.h"

struct readindex;

/* What raft says at the moment. */
struct readindex_view {
    raft_term term; /* that this member leads and has applied an entry of; 0: none */
    raft_index commit, applied;
    raft_id self;
    raft_id voters[MEMBERS_MAX];
    size_t voter_count;
    uint64_t now_ms;
};

/* Sends "which term are you in?" of a round to a voter; may fail silently. */
typedef void (*readindex_ask_fn)(void *user, raft_id voter, uint64_t round, raft_term term);
/* The read may go ahead, or not (`err`). */
typedef void (*readindex_done_fn)(void *user, void *read, const struct err *err);

/* `first_round`: higher than any this member has ever used (its clock), so that a late answer to an earlier process of
 * the same name is not taken for one to this. */
struct readindex *readindex_new(
    uint64_t first_round, uint32_t retry_ms, readindex_ask_fn ask, readindex_done_fn done, void *user);
/* Drops what is waiting without a word: readindex_fail() first. */
void readindex_free(struct readindex *index);

/* Adds a read; `read` is its caller's name for it. */
void readindex_add(struct readindex *index, void *read);
/* A voter's answer. */
void readindex_answer(struct readindex *index, raft_id voter, uint64_t round, raft_term term);
/* Starts, repeats and ends rounds. Reads wait while this member leads but is not ready (term 0). */
void readindex_step(struct readindex *index, const struct readindex_view *view);
/* Ends all reads with an error. */
void readindex_fail(struct readindex *index, const struct err *err);
bool readindex_idle(const struct readindex *index);

#endif
