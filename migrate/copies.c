#include "migrate/copies.h"

#include <pthread.h>
#include <stdlib.h>

#include "base/buf.h"
#include "migrate/ram.h"

/* How many places are looked at for one to be given up; beyond that the newcomer has bad luck. */
#define LOOKS_MAX 16u
/* Passes after which a page counts as not written any more. */
#define IDLE_PASSES 2u
#define NO_PAGE     UINT32_MAX

struct place {
    uint32_t page; /* NO_PAGE: none */
    uint32_t pass; /* in which it was sent last; 0: to be given up */
};

struct copies {
    pthread_mutex_t lock; /* all but the copies themselves */
    uint32_t *place_of;   /* by page: its place + 1, or 0 */
    struct place *places;
    uint8_t *bytes;
    uint32_t count, used, hand, pass;
};

struct copies *copies_new(size_t pages, uint64_t bytes)
{
    struct copies *c = mem_zalloc(sizeof *c);
    uint64_t count = bytes / PAGE_BYTES;
    c->count = (uint32_t)(count < pages ? count : pages);
    c->pass = 1;
    c->place_of = mem_zalloc(pages * sizeof *c->place_of);
    c->places = mem_alloc((c->count + 1) * sizeof *c->places);
    c->bytes = mem_alloc(((size_t)c->count + 1) * PAGE_BYTES); /* one allocation: untouched places cost nothing */
    pthread_mutex_init(&c->lock, NULL);
    return c;
}

void copies_free(struct copies *c)
{
    if (!c)
        return;
    pthread_mutex_destroy(&c->lock);
    free(c->place_of);
    free(c->places);
    free(c->bytes);
    free(c);
}

void copies_next_pass(struct copies *c)
{
    pthread_mutex_lock(&c->lock);
    c->pass++;
    pthread_mutex_unlock(&c->lock);
}

static uint8_t *copies_at(const struct copies *c, uint32_t place)
{
    return c->bytes + (size_t)place * PAGE_BYTES;
}

uint8_t *copies_find(struct copies *c, uint32_t page)
{
    uint8_t *copy = NULL;
    pthread_mutex_lock(&c->lock);
    uint32_t place = c->place_of[page];
    if (place) {
        c->places[place - 1].pass = c->pass;
        copy = copies_at(c, place - 1);
    }
    pthread_mutex_unlock(&c->lock);
    return copy;
}

/* A place that may be taken, or `count`. */
static uint32_t copies_vacate(struct copies *c)
{
    if (c->used < c->count)
        return c->used++;
    for (uint32_t looks = 0; looks < LOOKS_MAX && looks < c->count; looks++) {
        struct place *place = &c->places[c->hand];
        uint32_t index = c->hand;
        c->hand = (c->hand + 1) % c->count;
        if (place->pass != 0 && place->pass + IDLE_PASSES >= c->pass)
            continue;
        if (place->page != NO_PAGE)
            c->place_of[place->page] = 0;
        return index;
    }
    return c->count;
}

static uint8_t *copies_put(struct copies *c, uint32_t place, uint32_t page)
{
    c->places[place] = (struct place){.page = page, .pass = c->pass};
    c->place_of[page] = place + 1;
    return copies_at(c, place);
}

uint8_t *copies_admit(struct copies *c, uint32_t page)
{
    pthread_mutex_lock(&c->lock);
    uint32_t place = copies_vacate(c);
    uint8_t *copy = place < c->count ? copies_put(c, place, page) : NULL;
    pthread_mutex_unlock(&c->lock);
    return copy;
}

uint8_t *copies_try(struct copies *c, uint32_t page)
{
    pthread_mutex_lock(&c->lock);
    uint8_t *copy = c->used < c->count ? copies_put(c, c->used++, page) : NULL;
    pthread_mutex_unlock(&c->lock);
    return copy;
}

void copies_useless(struct copies *c, uint32_t page)
{
    pthread_mutex_lock(&c->lock);
    if (c->place_of[page])
        c->places[c->place_of[page] - 1].pass = 0;
    pthread_mutex_unlock(&c->lock);
}

void copies_drop(struct copies *c, uint32_t page)
{
    pthread_mutex_lock(&c->lock);
    if (c->place_of[page])
        c->places[c->place_of[page] - 1] = (struct place){.page = NO_PAGE};
    c->place_of[page] = 0;
    pthread_mutex_unlock(&c->lock);
}
