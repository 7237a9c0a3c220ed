/* Private to state/: statements that are prepared once, bound by a format and always reset.
 *
 *   t text   n text, NULL when empty   i int64_t   b bytes (pointer, size_t)
 *
 * A statement is found again by the address of its SQL, which must be a literal. Lists are read to their end before
 * anything else runs, so one statement is never used twice at a time. */
#ifndef CONTROLLER_STATE_SQL_H
#define CONTROLLER_STATE_SQL_H

#include <sqlite3.h>

#include "controller/state/state.h"

#define SQL_STATEMENTS_MAX 256

struct sql_slot {
    const char *text;
    sqlite3_stmt *statement;
};

struct state {
    sqlite3 *db;
    struct sql_slot slots[SQL_STATEMENTS_MAX]; /* by the hash of the literal's address */
};

/* Opens an empty database in memory with our settings. */
sqlite3 *sql_open(void);
/* Finalizes all statements; they are prepared again when they are used. */
void sql_forget(struct state *state);

/* Begins a query; step it with sql_row() until it says false. */
sqlite3_stmt *sql_query(struct state *state, const char *text, const char *format, ...);
/* True: a row is there. False: the end; the statement is reset. */
bool sql_row(sqlite3_stmt *query);
/* Ends a query before its last row. */
void sql_end(sqlite3_stmt *query);
/* Runs a change; rows changed, or -1 when a constraint forbids it. */
int sql_run(struct state *state, const char *text, const char *format, ...);
/* The one number of a query; 0 when it has no row. */
int64_t sql_number(struct state *state, const char *text, const char *format, ...);

/* Columns. */
void sql_text(sqlite3_stmt *query, int column, char *out, size_t size);
uint64_t sql_u64(sqlite3_stmt *query, int column);
/* A packed message; take. */
void *sql_message(sqlite3_stmt *query, int column, const ProtobufCMessageDescriptor *type);

/* schema.c: makes the tables of a new state. */
void schema_create(struct state *state);
/* All tables, in the order that hashes and checks use. Ended by NULL. */
extern const char *const schema_tables[];

/* effects.c: applies changes for job `job_id` (0: none) in order; -1 with the reason at the first that is refused. */
MUST_CHECK int effects_apply(
    struct state *state, Drover__Effect **effects, size_t count, uint64_t job_id, int64_t now_ms, struct err *err);
/* apply.c */
MUST_CHECK int job_create(struct state *state, const Drover__JobCreate *create, uint64_t parent_id, int64_t now_ms,
    struct err *err, uint64_t *id);
MUST_CHECK int job_cancel(struct state *state, const Drover__JobCancel *cancel, struct err *err);

#endif
