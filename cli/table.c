/* Tables, laid out by libsmartcols. */
#include <libsmartcols.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/ensure.h"
#include "cli/output.h"

struct table {
    struct libscols_table *scols;
    struct libscols_line *line;
    size_t columns, at, rows;
};

struct table *table_new(const char *const *columns)
{
    struct table *table = mem_zalloc(sizeof *table);
    table->scols = scols_new_table();
    ENSURE(table->scols);
    for (; columns[table->columns]; table->columns++) {
        const char *name = columns[table->columns];
        int right = name[0] == '>';
        ENSURE(scols_table_new_column(table->scols, name + right, 0, right ? SCOLS_FL_RIGHT : 0));
    }
    return table;
}

void table_add(struct table *table, const char *fmt, ...)
{
    char *text = NULL;
    va_list args;
    va_start(args, fmt);
    ENSURE(vasprintf(&text, fmt, args) >= 0);
    va_end(args);
    if (table->at == 0) {
        table->line = scols_table_new_line(table->scols, NULL);
        ENSURE(table->line);
        table->rows++;
    }
    ENSURE(scols_line_refer_data(table->line, table->at, text) == 0); /* takes the text */
    table->at = (table->at + 1) % table->columns;
}

void table_print(struct table *table, const char *empty)
{
    ENSURE(table->at == 0);
    if (table->rows)
        scols_print_table(table->scols);
    else
        puts(empty);
    table_free(table);
}

void table_free(struct table *table)
{
    scols_unref_table(table->scols);
    free(table);
}
