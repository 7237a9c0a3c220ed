#!/bin/busybox sh
# /init of the Drover test guest. Kernel command line:
#   drover.ip=ADDRESS/BITS  address of eth0        drover.gw=ADDRESS  default route
#   drover.run=LOADS        see service.h; default idle
# The serial console gets a shell.
/bin/busybox mount -t devtmpfs dev /dev
exec </dev/console >/dev/console 2>&1
export PATH=/bin
busybox mount -t proc proc /proc
busybox mount -t sysfs sys /sys
busybox --install -s /bin
echo 3 >/proc/sys/kernel/printk
while read -r module; do insmod "/modules/$module"; done </modules/order

address= gateway= run=idle
for word in $(cat /proc/cmdline); do
    case $word in
        drover.ip=*) address=${word#*=} ;;
        drover.gw=*) gateway=${word#*=} ;;
        drover.run=*) run=${word#*=} ;;
    esac
done
ip link set lo up
if [ -e /sys/class/net/eth0 ]; then
    echo 1 >/proc/sys/net/ipv4/conf/eth0/arp_notify # neighbours may remember another guest at this address
    ip link set eth0 up
    [ -z "$address" ] || ip addr add "$address" broadcast + dev eth0
    [ -z "$gateway" ] || ip route add default via "$gateway"
fi
if [ -x /bin/redis-server ]; then # of the image made with --redis
    redis-server --bind 127.0.0.1 --save '' --appendonly no --daemonize yes --logfile /redis.log
fi
/workload "$run" # goes on in the background once everything runs
while :; do setsid cttyhack sh; done
