# The first process of a sandbox: sets up its network and mounts, then reaps orphans until it is killed. The kernel
# then removes all processes, mounts and interfaces in the sandbox.
#   sandbox.sh FOLDER ADDRESS    the folder of the node's files, and the node's address
set -eu
state=$1 address=$2

ip link set lo up
# Both ends of this pair are in the sandbox: the node gets an address besides loopback, and a default route to nowhere.
ip link add node type veth peer name nowhere
ip address add "$address/24" dev node
ip link set node up
ip link set nowhere up
ip route add default via "${address%.*}.254" dev node
echo 1 > /proc/sys/net/ipv4/ip_forward

# Programs write to these paths whatever their configuration says. Keep that in the state folder or in memory.
resolver=$(readlink -m /etc/resolv.conf)
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/lock "$(dirname "$resolver")"
touch "$resolver"
mount --bind "$state/resolv.conf" "$resolver"
mount --bind "$state/lib" /var/lib
mount --bind "$state/log" /var/log

# kubelet sets these for the whole machine. Mount copies over them, so that kubelet changes only the copies.
for name in vm/overcommit_memory vm/panic_on_oom kernel/panic kernel/panic_on_oops \
    kernel/keys/root_maxkeys kernel/keys/root_maxbytes; do
    copy=/run/sysctl/$name
    mkdir -p "$(dirname "$copy")"
    cat "/proc/sys/$name" > "$copy"
    mount --bind "$copy" "/proc/sys/$name"
done

touch "$state/ready"
sleep infinity &
wait
