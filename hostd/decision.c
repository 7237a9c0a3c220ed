#include "hostd/decision.h"

#define REFUSALS_MAX   5u
#define RESUME_LATE_MS 4000u /* less than QEMU is given for an answer (5 s): the first one that fails is told of */
#define RESUME_MIN_MS  500u
#define RESUME_DOUBLES 3u /* until the longest pause: nobody should wait long for a disk that is free again */
#define RESUME_QUICK   8u /* so often at first, with the shortest */

enum engine_verdict decide_engine_death(bool incoming, enum record_phase phase, bool other_boot)
{
    switch (phase) {
    case RECORD_NONE:
        if (!incoming && other_boot)
            return VERDICT_DOUBT;
        return incoming ? VERDICT_END : VERDICT_RUN;
    case RECORD_FAILED:
        return incoming ? VERDICT_END : VERDICT_RUN;
    case RECORD_HANDED_OVER:
        return incoming ? VERDICT_END : VERDICT_DOUBT;
    case RECORD_SENDING:
        return incoming ? VERDICT_END : VERDICT_SEND;
    case RECORD_TAKEN:
        return VERDICT_END;
    case RECORD_OWNER:
        return incoming ? VERDICT_RUN : VERDICT_DOUBT; /* no source writes it: trust nothing */
    case RECORD_FETCHING:
        return incoming ? VERDICT_LOST : VERDICT_DOUBT; /* likewise */
    case RECORD_UNREADABLE:
        break;
    }
    /* It is replaced atomically, so somebody else has been at it. The source may have handed over. */
    return incoming ? VERDICT_END : VERDICT_DOUBT;
}

bool decide_sends_on(bool incoming, enum record_phase phase)
{
    return !incoming && phase == RECORD_SENDING;
}

bool decide_never_ran(enum record_phase phase, bool other_boot)
{
    bool owned = phase == RECORD_OWNER || phase == RECORD_FETCHING;
    return phase == RECORD_FAILED || (!owned && phase != RECORD_UNREADABLE && !other_boot);
}

bool decide_forsaken(enum record_phase phase)
{
    return phase != RECORD_NONE && phase != RECORD_FAILED;
}

bool decide_let_go(bool incoming, enum record_phase phase, bool guest_alive, bool in_order)
{
    return guest_alive && (incoming ? phase == RECORD_FETCHING : !in_order);
}

enum resume_step decide_resume(enum err_code why, unsigned refusals, uint64_t asked_ms, bool told)
{
    if (why == ERR_WRONG_STATE && refusals >= REFUSALS_MAX)
        return RESUME_GIVE_UP;
    return !told && asked_ms >= RESUME_LATE_MS ? RESUME_TELL : RESUME_AGAIN;
}

uint32_t decide_resume_pause_ms(unsigned asked)
{
    unsigned doubles = asked < RESUME_QUICK ? 0 : asked - RESUME_QUICK + 1;
    return RESUME_MIN_MS << (doubles < RESUME_DOUBLES ? doubles : RESUME_DOUBLES);
}

enum adoption decide_adoption(
    enum partition_state state, bool guest_alive, bool engine_alive, bool may_shut_down, enum record_phase phase)
{
    switch (state) {
    case STATE_NONE:
        return ADOPT_END;
    case STATE_STOPPING:
        return guest_alive && may_shut_down ? ADOPT_WATCH : ADOPT_END;
    case STATE_STARTING: /* nobody was told that it runs */
        return guest_alive ? ADOPT_WATCH : ADOPT_END;
    case STATE_RUNNING:
        return guest_alive ? ADOPT_WATCH : ADOPT_GUEST_DEATH;
    case STATE_IN_DOUBT:
        return guest_alive ? ADOPT_WATCH : ADOPT_GUEST_DEATH;
    case STATE_INCOMING:
    case STATE_OUTGOING:
        if (guest_alive)
            return engine_alive ? ADOPT_WATCH_ENGINE : ADOPT_ENGINE_DEATH;
        if (engine_alive && decide_sends_on(state == STATE_INCOMING, phase))
            return ADOPT_WATCH_SENDER;
        return engine_alive ? ADOPT_ENGINE_STOP : ADOPT_GUEST_DEATH;
    case STATE_STOPPED:
    case STATE_FAILED:
        break;
    }
    return ADOPT_KEEP;
}

enum guest_death decide_guest_death(enum partition_state state, enum record_phase phase)
{
    switch (state) {
    case STATE_OUTGOING:
        if (phase == RECORD_TAKEN)
            return DEATH_REMOVE;
        return phase == RECORD_NONE || phase == RECORD_FAILED ? DEATH_REPORT : DEATH_DOUBT;
    case STATE_INCOMING:
        return phase == RECORD_OWNER || phase == RECORD_FETCHING ? DEATH_REPORT : DEATH_REMOVE;
    case STATE_IN_DOUBT:
        return DEATH_DOUBT;
    case STATE_RUNNING:
        return DEATH_REPORT;
    case STATE_NONE:
    case STATE_STARTING:
    case STATE_STOPPING:
    case STATE_STOPPED:
    case STATE_FAILED:
        break;
    }
    return DEATH_REMOVE;
}
