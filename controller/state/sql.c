#include "controller/state/sql.h"

#include <stdarg.h>
#include <string.h>

#include "base/ensure.h"
#include "controller/pb.h"

sqlite3 *sql_open(void)
{
    sqlite3 *db = NULL;
    ENSURE(sqlite3_open_v2(":memory:", &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX, NULL) ==
           SQLITE_OK);
    ENSURE(sqlite3_db_config(db, SQLITE_DBCONFIG_DEFENSIVE, 1, NULL) == SQLITE_OK);
    ENSURE(sqlite3_exec(db, "PRAGMA foreign_keys = ON; PRAGMA cache_size = -2000; PRAGMA trusted_schema = OFF", NULL,
               NULL, NULL) == SQLITE_OK);
    return db;
}

void sql_forget(struct state *state)
{
    for (size_t i = 0; i < SQL_STATEMENTS_MAX; i++) {
        sqlite3_finalize(state->slots[i].statement);
        state->slots[i] = (struct sql_slot){0};
    }
}

static sqlite3_stmt *sql_find(struct state *state, const char *text)
{
    size_t at = ((uintptr_t)text * 0x9e3779b97f4a7c15u) >> 56;
    for (size_t n = 0; n < SQL_STATEMENTS_MAX; n++, at = (at + 1) % SQL_STATEMENTS_MAX) {
        struct sql_slot *slot = &state->slots[at];
        if (slot->text == text)
            return slot->statement;
        if (slot->text)
            continue;
        if (sqlite3_prepare_v3(state->db, text, -1, SQLITE_PREPARE_PERSISTENT, &slot->statement, NULL) != SQLITE_OK) {
            log_event(
                LOG_ERROR, "state.bad-sql", "sql=%s cause=%s", LOG_QUOTE(text), LOG_QUOTE(sqlite3_errmsg(state->db)));
            ENSURE(!"SQL is valid");
        }
        slot->text = text;
        return slot->statement;
    }
    ENSURE(!"a slot for every statement");
    return NULL;
}

static void sql_bind(sqlite3_stmt *statement, const char *format, va_list args)
{
    ENSURE(!sqlite3_stmt_busy(statement));
    int rc = SQLITE_OK;
    for (int i = 1; *format && rc == SQLITE_OK; i++, format++) {
        if (*format == 'i') {
            rc = sqlite3_bind_int64(statement, i, va_arg(args, int64_t));
        } else if (*format == 'b') {
            const void *data = va_arg(args, const void *);
            size_t len = va_arg(args, size_t);
            rc = len ? sqlite3_bind_blob64(statement, i, data, len, SQLITE_TRANSIENT)
                     : sqlite3_bind_zeroblob(statement, i, 0);
        } else {
            const char *text = va_arg(args, const char *);
            rc = *format == 'n' && !*text ? sqlite3_bind_null(statement, i)
                                          : sqlite3_bind_text(statement, i, text, -1, SQLITE_TRANSIENT);
        }
    }
    ENSURE(rc == SQLITE_OK);
}

bool sql_row(sqlite3_stmt *query)
{
    int rc = sqlite3_step(query);
    if (rc == SQLITE_ROW)
        return true;
    ENSURE(rc == SQLITE_DONE);
    sqlite3_reset(query);
    return false;
}

void sql_end(sqlite3_stmt *query)
{
    sqlite3_reset(query);
}

sqlite3_stmt *sql_query(struct state *state, const char *text, const char *format, ...)
{
    sqlite3_stmt *statement = sql_find(state, text);
    va_list args;
    va_start(args, format);
    sql_bind(statement, format, args);
    va_end(args);
    return statement;
}

int sql_run(struct state *state, const char *text, const char *format, ...)
{
    sqlite3_stmt *statement = sql_find(state, text);
    va_list args;
    va_start(args, format);
    sql_bind(statement, format, args);
    va_end(args);
    int rc = sqlite3_step(statement);
    sqlite3_reset(statement);
    if (rc == SQLITE_CONSTRAINT)
        return -1;
    if (rc != SQLITE_DONE)
        log_event(
            LOG_ERROR, "state.sql-failed", "sql=%s cause=%s", LOG_QUOTE(text), LOG_QUOTE(sqlite3_errmsg(state->db)));
    ENSURE(rc == SQLITE_DONE);
    return sqlite3_changes(state->db);
}

int64_t sql_number(struct state *state, const char *text, const char *format, ...)
{
    sqlite3_stmt *statement = sql_find(state, text);
    va_list args;
    va_start(args, format);
    sql_bind(statement, format, args);
    va_end(args);
    int64_t number = 0;
    if (sql_row(statement)) {
        number = sqlite3_column_int64(statement, 0);
        sql_end(statement);
    }
    return number;
}

void sql_text(sqlite3_stmt *query, int column, char *out, size_t size)
{
    const unsigned char *text = sqlite3_column_text(query, column);
    snprintf(out, size, "%s", text ? (const char *)text : "");
}

uint64_t sql_u64(sqlite3_stmt *query, int column)
{
    return (uint64_t)sqlite3_column_int64(query, column);
}

void *sql_message(sqlite3_stmt *query, int column, const ProtobufCMessageDescriptor *type)
{
    const void *data = sqlite3_column_blob(query, column);
    void *message = pb_unpack(type, data ? data : (const void *)"", (size_t)sqlite3_column_bytes(query, column));
    ENSURE(message != NULL); /* only state_apply() wrote it */
    return message;
}
