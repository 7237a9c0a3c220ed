/* A guest without an operating system: it answers ARP and echo requests through a virtio network card, and if asked to
 * rewrites pages. What is left of a blackout with it is the mover's: a guest that QEMU emulates starts without any
 * translated code, and this one needs few blocks of it where a Linux needs more than a thousand.
 *
 *   gcc -m32 -ffreestanding -nostdlib ... (bench/echo.py)
 *       -DADDRESS=0x0a4d000b -DPAGES_PER_S=0 -DWORKING_SET_BYTES=0
 *
 * QEMU starts it as a Multiboot kernel (-kernel), with SeaBIOS having set up PCI: 32 bits, no paging, one CPU. It
 * sleeps in `hlt` until the card or, if pages are to be written, the timer interrupts. The card is driven as the legacy
 * interface of virtio 1.0 (4.1.4.8) says, without features. Buffer i belongs to descriptor i of both queues: a frame is
 * answered where it lies, and its buffer goes back to the card when the answer has gone out. */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MULTIBOOT_MAGIC 0x1badb002u
#define STACK_BYTES     4096
#define PAGE_BYTES      4096u

/* ---- start ---- */

__attribute__((section(".multiboot"), used)) static const uint32_t header[] = {MULTIBOOT_MAGIC, 0, -MULTIBOOT_MAGIC};
__attribute__((used)) static uint8_t stack[STACK_BYTES];
void guest_main(void);

__asm__(".globl _start\n"
        "_start:\n"
        "  cli\n"
        "  mov $stack + 4096, %esp\n"
        "  call guest_main\n"
        "1: hlt\n"
        "  jmp 1b\n");

static inline void out8(uint16_t port, uint8_t value)
{
    __asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port));
}

static inline void out16(uint16_t port, uint16_t value)
{
    __asm__ volatile("outw %0, %1" : : "a"(value), "Nd"(port));
}

static inline void out32(uint16_t port, uint32_t value)
{
    __asm__ volatile("outl %0, %1" : : "a"(value), "Nd"(port));
}

static inline uint8_t in8(uint16_t port)
{
    uint8_t value;
    __asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port));
    return value;
}

static inline uint16_t in16(uint16_t port)
{
    uint16_t value;
    __asm__ volatile("inw %1, %0" : "=a"(value) : "Nd"(port));
    return value;
}

static inline uint32_t in32(uint16_t port)
{
    uint32_t value;
    __asm__ volatile("inl %1, %0" : "=a"(value) : "Nd"(port));
    return value;
}

/* Says it on the serial line and stops. */
static void die(const char *why)
{
    for (; *why; why++) {
        out8(0x3f8, (uint8_t)*why);
    }
    for (;;) {
        __asm__ volatile("cli; hlt");
    }
}

/* ---- interrupts ---- */

#define VECTORS      48
#define FIRST_VECTOR 32 /* of the two interrupt controllers, 8 each */
#define TIMER_HZ     1000
#define TIMER_INPUT  1193182

struct gate {
    uint16_t low, selector, flags, high;
} __attribute__((packed));

struct table {
    uint16_t limit;
    const void *base;
} __attribute__((packed));

static struct gate gates[VECTORS];
static const uint64_t segments[] = {0, 0x00cf9a000000ffff, 0x00cf92000000ffff}; /* all of memory, to run and to use */
static volatile uint32_t ticks;
static uint16_t card; /* its first I/O port */

void on_tick(void);
void on_card(void);
void tick_entry(void);
void card_entry(void);

__asm__("tick_entry: pusha\n"
        "  call on_tick\n"
        "  popa\n"
        "  iret\n"
        "card_entry: pusha\n"
        "  call on_card\n"
        "  popa\n"
        "  iret\n");

void on_tick(void)
{
    ticks++;
    out8(0x20, 0x20);
}

#define CARD_ISR 19

void on_card(void)
{
    in8((uint16_t)(card + CARD_ISR)); /* which takes the interrupt back */
    out8(0xa0, 0x20);
    out8(0x20, 0x20);
}

static void interrupts_open(uint8_t line)
{
    const struct table gdt = {sizeof segments - 1, segments}, idt = {sizeof gates - 1, gates};

    for (uint32_t vector = FIRST_VECTOR; vector < VECTORS; vector++) {
        uint32_t entry = vector == FIRST_VECTOR ? (uint32_t)tick_entry : (uint32_t)card_entry;
        gates[vector] = (struct gate){(uint16_t)entry, 8, 0x8e00, (uint16_t)(entry >> 16)};
    }
    __asm__ volatile("lgdt %0\n"
                     "  ljmp $8, $1f\n"
                     "1: mov $16, %%eax\n"
                     "  mov %%eax, %%ds; mov %%eax, %%es; mov %%eax, %%ss\n"
                     "  lidt %1"
                     :
                     : "m"(gdt), "m"(idt)
                     : "eax", "memory");

    static const uint8_t setup[][2] = {{0x20, 0x11}, {0x21, FIRST_VECTOR}, {0x21, 4}, {0x21, 1}, {0xa0, 0x11},
        {0xa1, FIRST_VECTOR + 8}, {0xa1, 2}, {0xa1, 1}};
    for (size_t i = 0; i < sizeof setup / sizeof setup[0]; i++) {
        out8(setup[i][0], setup[i][1]);
    }
    uint16_t wanted = (uint16_t)(1u << line | 1u << 2 | (PAGES_PER_S ? 1u : 0u));
    out8(0x21, (uint8_t)~wanted);
    out8(0xa1, (uint8_t)(~wanted >> 8));
    out8(0x43, 0x34); /* timer 0, again and again */
    out8(0x40, (TIMER_INPUT / TIMER_HZ) & 0xff);
    out8(0x40, (TIMER_INPUT / TIMER_HZ) >> 8);
}

/* ---- the card ---- */

#define QUEUE_SIZE      256u /* QEMU's */
#define BUFFER_BYTES    2048u
#define HEADER_BYTES    10u /* before each frame; all zeros: nothing was left to the card */
#define FRAME_BYTES_MIN 60u
#define RECEIVE         0
#define TRANSMIT        1
#define WRITABLE        2 /* descriptor: for the card to write */
#define NO_INTERRUPT    1

enum {
    CARD_FEATURES = 4,
    CARD_QUEUE_PAGE = 8,
    CARD_QUEUE_SIZE = 12,
    CARD_QUEUE = 14,
    CARD_NOTIFY = 16,
    CARD_STATUS = 18,
    CARD_MAC = 20
};

struct queue {
    struct {
        uint64_t address;
        uint32_t bytes;
        uint16_t flags, next;
    } descriptors[QUEUE_SIZE];
    uint16_t offered_flags, offered;
    uint16_t offers[QUEUE_SIZE];
    uint8_t gap[PAGE_BYTES - (4 + QUEUE_SIZE * 2)];
    volatile uint16_t used_flags, used;
    struct {
        uint32_t id, bytes;
    } returns[QUEUE_SIZE];
} __attribute__((aligned(4096)));

_Static_assert(offsetof(struct queue, used_flags) % PAGE_BYTES == 0, "where virtio wants it");

static struct queue queues[2];
static uint16_t seen[2]; /* how many of the returns */
static uint8_t buffers[QUEUE_SIZE][BUFFER_BYTES];
static uint8_t mac[6];

static uint32_t pci_read(uint32_t device, uint32_t at)
{
    out32(0xcf8, 0x80000000u | device << 11 | at);
    return in32(0xcfc);
}

static uint32_t card_find(void)
{
    for (uint32_t device = 0; device < 32; device++) {
        if (pci_read(device, 0) == 0x10001af4) {
            return device;
        }
    }
    die("no virtio network card with a legacy interface\n");
    return 0;
}

static void queue_offer(int number, uint32_t id, uint32_t bytes)
{
    struct queue *queue = &queues[number];
    queue->descriptors[id].bytes = bytes;
    queue->offers[queue->offered % QUEUE_SIZE] = (uint16_t)id;
    __asm__ volatile("" : : : "memory");
    queue->offered++;
}

static void queue_open(int number)
{
    struct queue *queue = &queues[number];
    out16((uint16_t)(card + CARD_QUEUE), (uint16_t)number);
    if (in16((uint16_t)(card + CARD_QUEUE_SIZE)) != QUEUE_SIZE) {
        die("queues of another size than is known\n");
    }
    for (uint32_t i = 0; i < QUEUE_SIZE; i++) {
        queue->descriptors[i].address = (uint32_t)buffers[i];
        queue->descriptors[i].flags = number == RECEIVE ? WRITABLE : 0;
    }
    out32((uint16_t)(card + CARD_QUEUE_PAGE), (uint32_t)queue / PAGE_BYTES);
}

static uint8_t card_open(void)
{
    uint32_t device = card_find();
    card = (uint16_t)(pci_read(device, 0x10) & ~3u);
    uint32_t command = pci_read(device, 4);
    out32(0xcfc, (command & 0xffff) | 5); /* I/O ports, and memory of its own accord */
    out8((uint16_t)(card + CARD_STATUS), 0);
    out8((uint16_t)(card + CARD_STATUS), 3); /* seen, and known how to drive */
    out32((uint16_t)(card + CARD_FEATURES), 0);
    queue_open(RECEIVE);
    queue_open(TRANSMIT);
    queues[TRANSMIT].offered_flags = NO_INTERRUPT;
    for (uint16_t i = 0; i < sizeof mac; i++) {
        mac[i] = in8((uint16_t)(card + CARD_MAC + i));
    }
    for (uint32_t i = 0; i < QUEUE_SIZE - 1; i++) {
        queue_offer(RECEIVE, i, BUFFER_BYTES);
    }
    out8((uint16_t)(card + CARD_STATUS), 7);
    out16((uint16_t)(card + CARD_NOTIFY), RECEIVE);
    return (uint8_t)pci_read(device, 0x3c) & 15;
}

/* ---- answering ---- */

struct __attribute__((packed)) frame {
    uint8_t to[6], from[6];
    uint16_t type;
    union {
        struct __attribute__((packed)) {
            uint16_t hardware, protocol;
            uint8_t sizes[2];
            uint16_t operation;
            uint8_t sender[6];
            uint32_t sender_ip;
            uint8_t target[6];
            uint32_t target_ip;
        } arp;
        struct __attribute__((packed)) {
            uint8_t head[9], protocol;
            uint16_t checksum;
            uint32_t from, to;
            uint8_t kind, code;
            uint16_t echo_checksum;
        } ip;
    };
};

#define NETWORK16(x) ((uint16_t)((x) << 8 | (x) >> 8))
#define OWN_IP       __builtin_bswap32(ADDRESS)

static inline void mac_copy(uint8_t *to, const uint8_t *from)
{
    for (int i = 0; i < 6; i++) {
        to[i] = from[i];
    }
}

/* Turns a request into its answer; false: it is none for us. */
static bool frame_answer(struct frame *f)
{
    if (f->type == NETWORK16(0x0800) && f->ip.protocol == 1 && f->ip.kind == 8 && f->ip.to == OWN_IP &&
        f->ip.head[0] == 0x45) {
        f->ip.to = f->ip.from;
        f->ip.from = OWN_IP;
        f->ip.kind = 0;
        uint32_t sum = f->ip.echo_checksum + 8u; /* the kind was 8, in the lower byte of its word */
        f->ip.echo_checksum = (uint16_t)(sum + (sum >> 16));
    } else if (f->type == NETWORK16(0x0806) && f->arp.operation == NETWORK16(1) && f->arp.target_ip == OWN_IP) {
        f->arp.operation = NETWORK16(2);
        mac_copy(f->arp.target, f->arp.sender);
        f->arp.target_ip = f->arp.sender_ip;
        mac_copy(f->arp.sender, mac);
        f->arp.sender_ip = OWN_IP;
    } else {
        return false;
    }
    mac_copy(f->to, f->from);
    mac_copy(f->from, mac);
    return true;
}

/* To everybody, about itself, as an operating system does once its card is up: bridges and neighbours that knew this
 * address elsewhere would look for it there until they forget, which takes them 40 s. */
static void address_announce(void)
{
    uint32_t id = QUEUE_SIZE - 1; /* not offered for receiving yet */
    struct frame *f = (struct frame *)(buffers[id] + HEADER_BYTES);
    for (int i = 0; i < 6; i++) {
        f->to[i] = 0xff;
    }
    f->type = NETWORK16(0x0806);
    f->arp.hardware = NETWORK16(1);
    f->arp.protocol = NETWORK16(0x0800);
    f->arp.sizes[0] = sizeof mac;
    f->arp.sizes[1] = sizeof f->arp.sender_ip;
    f->arp.operation = NETWORK16(1);
    mac_copy(f->from, mac);
    mac_copy(f->arp.sender, mac);
    f->arp.sender_ip = f->arp.target_ip = OWN_IP;
    queue_offer(TRANSMIT, id, HEADER_BYTES + FRAME_BYTES_MIN);
    out16((uint16_t)(card + CARD_NOTIFY), TRANSMIT);
}

/* Answers that have gone out interrupt nobody: their buffers are taken back with the next request. So some must be left
 * to receive one. */
static bool card_may_rest(void)
{
    return (uint16_t)(queues[TRANSMIT].offered - seen[TRANSMIT]) < QUEUE_SIZE / 2;
}

/* True: there was something to do. */
static bool card_serve(void)
{
    bool answered = false, returned = false;

    while (seen[TRANSMIT] != queues[TRANSMIT].used) {
        queue_offer(RECEIVE, queues[TRANSMIT].returns[seen[TRANSMIT]++ % QUEUE_SIZE].id, BUFFER_BYTES);
        returned = true;
    }
    while (seen[RECEIVE] != queues[RECEIVE].used) {
        uint32_t id = queues[RECEIVE].returns[seen[RECEIVE] % QUEUE_SIZE].id;
        uint32_t bytes = queues[RECEIVE].returns[seen[RECEIVE]++ % QUEUE_SIZE].bytes;
        if (bytes >= HEADER_BYTES + sizeof(struct frame) &&
            frame_answer((struct frame *)(buffers[id] + HEADER_BYTES))) {
            for (uint32_t i = 0; i < HEADER_BYTES; i++) {
                buffers[id][i] = 0;
            }
            queue_offer(TRANSMIT, id, bytes);
            answered = true;
        } else {
            queue_offer(RECEIVE, id, BUFFER_BYTES);
            returned = true;
        }
    }
    if (answered) {
        out16((uint16_t)(card + CARD_NOTIFY), TRANSMIT);
    }
    if (returned) {
        out16((uint16_t)(card + CARD_NOTIFY), RECEIVE);
    }
    return answered || returned;
}

/* ---- writing ---- */

#define WRITTEN_AT (16u << 20)

static uint32_t random_state = 2463534242u;

static uint32_t random_next(void)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 17;
    return random_state ^= random_state << 5;
}

/* A third of each page does not compress. */
static void page_write(void)
{
    uint32_t *page = (uint32_t *)(WRITTEN_AT + random_next() % (WORKING_SET_BYTES / PAGE_BYTES) * PAGE_BYTES);
    for (uint32_t i = 0; i < PAGE_BYTES / 4; i++) {
        page[i] = i % 3 ? i : random_next();
    }
}

static void pages_write(uint32_t *done)
{
    static uint32_t owed; /* thousandths of pages */
    for (; *done != ticks; ++*done) {
        owed += PAGES_PER_S;
        for (; owed >= TIMER_HZ; owed -= TIMER_HZ) {
            page_write();
            card_serve();
        }
    }
}

void guest_main(void)
{
    uint32_t done = 0;
    interrupts_open(card_open());
    address_announce();
    for (;;) {
        __asm__ volatile("cli" : : : "memory");
        if (!card_serve() && card_may_rest() && done == ticks) {
            __asm__ volatile("sti; hlt" : : : "memory"); /* nothing can come between these two */
        }
        __asm__ volatile("sti" : : : "memory");
        if (PAGES_PER_S) {
            pages_write(&done);
        }
    }
}
