/* What somebody probably meant: the candidate with the fewest slips of the finger (a letter missing, too many, wrong,
 * or two swapped: the optimal string alignment distance), if these are few for the length of the word. */
#include <ctype.h>
#include <string.h>

#include "cli/args.h"

#define WORD_MAX 48

static size_t least(size_t a, size_t b)
{
    return a < b ? a : b;
}

static size_t slips(const char *a, const char *b)
{
    size_t rows[3][WORD_MAX + 1], la = strlen(a), lb = strlen(b);
    if (la > WORD_MAX || lb > WORD_MAX)
        return WORD_MAX;
    size_t *before = rows[0], *last = rows[1], *now = rows[2];
    for (size_t j = 0; j <= lb; j++)
        last[j] = j;
    for (size_t i = 1; i <= la; i++) {
        now[0] = i;
        for (size_t j = 1; j <= lb; j++) {
            bool same = tolower((unsigned char)a[i - 1]) == tolower((unsigned char)b[j - 1]);
            now[j] = least(last[j - 1] + !same, least(last[j], now[j - 1]) + 1);
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
                now[j] = least(now[j], before[j - 2] + 1);
        }
        size_t *oldest = before;
        before = last;
        last = now;
        now = oldest;
    }
    return last[lb];
}

const char *suggest_nearest(const char *word, const char *const *candidates)
{
    const char *nearest = NULL;
    size_t len = strlen(word), best = len / 3 + 1;
    if (len == 0 || len > WORD_MAX)
        return NULL;
    for (; *candidates; candidates++) {
        /* The beginning of a word is as good as one slip, a larger part of it as two. */
        size_t distance = slips(word, *candidates);
        if (len > 1 && strncmp(word, *candidates, len) == 0)
            distance = least(distance, 1);
        else if (len > 3 && strstr(*candidates, word))
            distance = least(distance, 2);
        if (distance < best || (distance == best && !nearest && distance < len)) {
            best = distance;
            nearest = *candidates;
        }
    }
    return nearest;
}
