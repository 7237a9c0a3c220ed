#include "migrate/blind.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static int blind_refuse(const char *what, const char *name, const char *how, struct err *err)
{
    return err_set(err, ERR_UNSUPPORTED,
        "%s %.100s (%.100s) writes guest memory where it cannot be tracked; remove it from the VM to move it", what,
        name && *name ? name : "without a name", how);
}

int blind_check_device(const char *name, const char *type, struct err *err)
{
    static const char *const refused[] = {"vfio", "vhost", "virtio-mem", "ivshmem", "vdpa"};
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++)
        if (strstr(type, refused[i]))
            return blind_refuse("device", name, type, err);
    return 0;
}

int blind_check_block(const char *name, const char *driver, struct err *err)
{
    /* nvme takes the controller over VFIO; those of libblkio map guest memory for a device or another process. */
    static const char *const refused[] = {
        "nvme", "nvme-io_uring", "virtio-blk-vfio-pci", "virtio-blk-vhost-user", "virtio-blk-vhost-vdpa"};
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++)
        if (strcmp(driver, refused[i]) == 0)
            return blind_refuse("disk", name, driver, err);
    return 0;
}

int blind_check_network(const char *text, struct err *err)
{
    static const char *const refused[] = {"type=vhost-user", "type=vhost-vdpa"};
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++)
        if (strstr(text, refused[i]))
            return blind_refuse("network card", NULL, refused[i] + strlen("type="), err);
    return 0;
}

int blind_check_process(pid_t pid, struct err *err)
{
    static const char *const refused[] = {"/dev/vhost-", "/dev/vfio/", "/dev/vdpa", "/dev/iommu"};
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/fd", (int)pid);
    DIR *dir = opendir(path);
    if (!dir)
        return err_errno(err, ERR_NOT_FOUND, errno, "cannot look into QEMU process %d", (int)pid);
    int rc = 0;
    for (struct dirent *entry; rc == 0 && (entry = readdir(dir));) {
        char target[64];
        ssize_t n = readlinkat(dirfd(dir), entry->d_name, target, sizeof target - 1);
        if (n <= 0)
            continue;
        target[n] = '\0';
        for (size_t i = 0; i < sizeof refused / sizeof *refused; i++)
            if (strncmp(target, refused[i], strlen(refused[i])) == 0)
                rc = blind_refuse("a device that uses", target, "by the kernel or by itself", err);
    }
    closedir(dir);
    return rc;
}
