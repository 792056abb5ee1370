# The first process of a sandbox: makes its network and its mounts, and then reaps what others leave behind until it is killed; with it
# go all processes, mounts and interfaces in here. Called with the folder of the node's files and the node's address.
set -eu
state=$1 address=$2

ip link set lo up
# A pair of which both ends are in here: the node has an address that is not loopback, and a way to everywhere that leads nowhere.
ip link add node type veth peer name nowhere
ip address add "$address/24" dev node
ip link set node up
ip link set nowhere up
ip route add default via "${address%.*}.254" dev node
echo 1 > /proc/sys/net/ipv4/ip_forward

# Programs write here whatever they are told; it stays in the state folder, or in memory.
resolver=$(readlink -m /etc/resolv.conf)
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/lock "$(dirname "$resolver")"
touch "$resolver"
mount --bind "$state/resolv.conf" "$resolver"
mount --bind "$state/lib" /var/lib
mount --bind "$state/log" /var/log

# kubelet sets these for the whole machine. In here it sets copies.
for name in vm/overcommit_memory vm/panic_on_oom kernel/panic kernel/panic_on_oops kernel/keys/root_maxkeys kernel/keys/root_maxbytes; do
    copy=/run/sysctl/$name
    mkdir -p "$(dirname "$copy")"
    cat "/proc/sys/$name" > "$copy"
    mount --bind "$copy" "/proc/sys/$name"
done

touch "$state/ready"
sleep infinity &
wait
