/* Identities that must never repeat, from the kernel's random numbers. */
#ifndef CONTROLLER_RANDOM_H
#define CONTROLLER_RANDOM_H

#define RANDOM_UUID 37
#define RANDOM_MAC  18

/* A version 4 UUID. */
void random_uuid(char out[static RANDOM_UUID]);
/* A MAC address of the range QEMU's guests use. */
void random_mac(char out[static RANDOM_MAC]);

#endif
