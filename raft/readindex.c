#include "raft/readindex.h"

#include <stdlib.h>

#include "base/buf.h"

/* Reads as a list that keeps their order. */
struct read {
    struct read *next;
    void *name;
};

struct read_list {
    struct read *first, **last;
};

/*        add            step: asked          majority            applied
 *  ---> waiting -----> (round) asking -----> proved ----------> done */
enum round_state { ROUND_NONE, ROUND_ASKING, ROUND_PROVED };

struct readindex {
    readindex_ask_fn ask;
    readindex_done_fn done;
    void *user;
    uint32_t retry_ms;
    struct read_list waiting, in_round;
    enum round_state state;
    uint64_t round, asked_ms;
    raft_term term;
    raft_index commit;
    raft_id answered[MEMBERS_MAX];
    size_t answered_count;
};

static void list_init(struct read_list *list)
{
    list->first = NULL;
    list->last = &list->first;
}

/* Puts all of `from` behind `to`. */
static void list_move(struct read_list *from, struct read_list *to)
{
    if (!from->first)
        return;
    *to->last = from->first;
    to->last = from->last;
    list_init(from);
}

static void list_end(struct readindex *index, struct read_list *list, const struct err *err)
{
    struct read *read = list->first;
    list_init(list);
    while (read) {
        struct read *next = read->next;
        if (index->done)
            index->done(index->user, read->name, err);
        free(read);
        read = next;
    }
}

struct readindex *readindex_new(
    uint64_t first_round, uint32_t retry_ms, readindex_ask_fn ask, readindex_done_fn done, void *user)
{
    struct readindex *index = mem_zalloc(sizeof *index);
    index->round = first_round;
    index->retry_ms = retry_ms;
    index->ask = ask;
    index->done = done;
    index->user = user;
    list_init(&index->waiting);
    list_init(&index->in_round);
    return index;
}

void readindex_free(struct readindex *index)
{
    if (!index)
        return;
    index->done = NULL;
    readindex_fail(index, NULL);
    free(index);
}

void readindex_add(struct readindex *index, void *name)
{
    struct read *read = mem_alloc(sizeof *read);
    *read = (struct read){.name = name};
    *index->waiting.last = read;
    index->waiting.last = &read->next;
}

static bool has_answered(const struct readindex *index, raft_id voter)
{
    for (size_t i = 0; i < index->answered_count; i++)
        if (index->answered[i] == voter)
            return true;
    return false;
}

void readindex_answer(struct readindex *index, raft_id voter, uint64_t round, raft_term term)
{
    /* A newer term proves nothing; that we have lost the leadership is Raft's to find out. */
    if (index->state != ROUND_ASKING || round != index->round || term > index->term || has_answered(index, voter) ||
        index->answered_count == MEMBERS_MAX)
        return;
    index->answered[index->answered_count++] = voter;
}

static bool has_majority(const struct readindex *index, const struct readindex_view *view)
{
    size_t votes = 0;
    for (size_t i = 0; i < view->voter_count; i++)
        if (view->voters[i] == view->self || has_answered(index, view->voters[i]))
            votes++;
    return votes > view->voter_count / 2;
}

static void ask_all(struct readindex *index, const struct readindex_view *view)
{
    index->asked_ms = view->now_ms;
    for (size_t i = 0; i < view->voter_count; i++)
        if (view->voters[i] != view->self && !has_answered(index, view->voters[i]))
            index->ask(index->user, view->voters[i], index->round, index->term);
}

static void begin_round(struct readindex *index, const struct readindex_view *view)
{
    list_move(&index->waiting, &index->in_round);
    index->state = ROUND_ASKING;
    index->round++;
    index->term = view->term;
    index->commit = view->commit;
    index->answered_count = 0;
    ask_all(index, view);
}

/* Answers of another term prove nothing about this one: back to the front of the queue. */
static void abandon_round(struct readindex *index)
{
    list_move(&index->waiting, &index->in_round);
    list_move(&index->in_round, &index->waiting);
    index->state = ROUND_NONE;
}

void readindex_step(struct readindex *index, const struct readindex_view *view)
{
    if (index->state != ROUND_NONE && view->term != index->term)
        abandon_round(index);
    if (view->term == 0)
        return;
    if (index->state == ROUND_NONE && index->waiting.first)
        begin_round(index, view);
    if (index->state == ROUND_ASKING && has_majority(index, view))
        index->state = ROUND_PROVED;
    if (index->state == ROUND_ASKING && view->now_ms - index->asked_ms >= index->retry_ms)
        ask_all(index, view);
    if (index->state == ROUND_PROVED && view->applied >= index->commit) {
        index->state = ROUND_NONE;
        list_end(index, &index->in_round, NULL);
    }
}

void readindex_fail(struct readindex *index, const struct err *err)
{
    list_move(&index->waiting, &index->in_round);
    index->state = ROUND_NONE;
    list_end(index, &index->in_round, err);
}

bool readindex_idle(const struct readindex *index)
{
    return !index->waiting.first && !index->in_round.first;
}
