/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
/* clang-format on */
#include <stdio.h>
#include <string.h>

#include "hostd/decision.h"

/* The tables of ARCHITECTURE.md's "Ownership protocol", held against the decisions that they describe. */

#define CELLS    3
#define CELL_MAX 200
#define PHASES   (RECORD_UNREADABLE + 1)

struct row {
    char cells[CELLS][CELL_MAX];
};

static bool row_parse(const char *line, struct row *out)
{
    const char *at = line + 1;
    for (size_t i = 0; i < CELLS; i++) {
        const char *end = strchr(at, '|');
        if (line[0] != '|' || !end)
            return false;
        while (*at == ' ')
            at++;
        int len = (int)(end - at);
        while (len > 0 && at[len - 1] == ' ')
            len--;
        snprintf(out->cells[i], CELL_MAX, "%.*s", len < 0 ? 0 : len, at);
        at = end + 1;
    }
    return true;
}

/* Calls `each` with every row of the table that has this head; returns how many there were. */
static size_t table_read(const char *head, void (*each)(const struct row *row))
{
    char line[1024];
    struct row row;
    size_t rows = 0;
    FILE *file = fopen(ARCHITECTURE, "r");
    assert_non_null(file);
    while (fgets(line, sizeof line, file) && strncmp(line, head, strlen(head)) != 0)
        ;
    assert_non_null(fgets(line, sizeof line, file)); /* the rule below the head */
    for (; fgets(line, sizeof line, file) && row_parse(line, &row); rows++)
        each(&row);
    fclose(file);
    return rows;
}

static int name_find(const char *const *names, size_t count, const char *text)
{
    for (size_t i = 0; i < count; i++)
        if (strncmp(text, names[i], strlen(names[i])) == 0)
            return (int)i;
    fail_msg("'%s' is no word of hostd/decision.h", text);
    return -1;
}

static void engine_row(const struct row *row)
{
    static const char *const phases[PHASES] = {"none", "`failed`", "`handed-over`", "`handed-over`, `postcopy`",
        "`taken`", "`owner`", "`owner`, `postcopy`", "unreadable"};
    static const char *const verdicts[] = {"RUN", "LOST", "SEND", "DOUBT", "END"};
    static const char reset[] = "after a reset of the host ";
    size_t phase = 0;
    while (phase < PHASES && strcmp(row->cells[0], phases[phase]) != 0)
        phase++;
    assert_true(phase < PHASES);
    for (size_t side = 0; side < 2; side++) {
        const char *cell = row->cells[1 + side], *after = strstr(cell, reset);
        int verdict = name_find(verdicts, 5, cell);
        int later = after ? name_find(verdicts, 5, after + strlen(reset)) : verdict;
        assert_int_equal(decide_engine_death(side == 1, (enum record_phase)phase, false), verdict);
        assert_int_equal(decide_engine_death(side == 1, (enum record_phase)phase, true), later);
    }
}

static void the_table_of_dead_engines_is_true(void **unused)
{
    (void)unused;
    assert_int_equal(table_read("| record | on the source's host |", engine_row), PHASES);
}

/* Which records a row is about; `others`: of the rows before it, for "anything else". */
static unsigned records_of(const char *cell, unsigned others)
{
    static const struct {
        const char *name;
        unsigned phases;
    } names[] = {{"none", 1u << RECORD_NONE}, {"`failed`", 1u << RECORD_FAILED}, {"`taken`", 1u << RECORD_TAKEN},
        {"`owner`", 1u << RECORD_OWNER | 1u << RECORD_FETCHING}};
    unsigned found = 0;
    if (cell[0] == '\0' || strcmp(cell, "anything else") == 0)
        return ((1u << PHASES) - 1) & ~others;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strstr(cell, names[i].name))
            found |= names[i].phases;
    assert_int_not_equal(found, 0);
    return found;
}

static unsigned told[STATE_COUNT]; /* records that rows of a state were about */

static void guest_row(const struct row *row)
{
    static const char *const deaths[] = {"REPORT", "REMOVE", "DOUBT"};
    char name[CELL_MAX];
    snprintf(name, sizeof name, "%s", strcmp(row->cells[0], "in doubt") == 0 ? "in-doubt" : row->cells[0]);
    int state = state_parse(name);
    assert_true(state >= 0);
    unsigned phases = records_of(row->cells[1], told[state]);
    told[state] |= phases;
    for (unsigned phase = 0; phase < PHASES; phase++)
        if (phases & 1u << phase)
            assert_int_equal(decide_guest_death((enum partition_state)state, (enum record_phase)phase),
                name_find(deaths, 3, row->cells[2]));
}

static void the_table_of_dead_guests_is_true(void **unused)
{
    (void)unused;
    memset(told, 0, sizeof told);
    (void)table_read("| partition is | record says |", guest_row);
    static const enum partition_state states[] = {STATE_RUNNING, STATE_OUTGOING, STATE_INCOMING, STATE_IN_DOUBT};
    for (size_t i = 0; i < sizeof states / sizeof *states; i++)
        assert_int_equal(told[states[i]], (1u << PHASES) - 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_table_of_dead_engines_is_true),
        cmocka_unit_test(the_table_of_dead_guests_is_true),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
