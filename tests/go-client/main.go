// The tests' programs in Go: an informer of client-go, and a kubelet whose containers only talk.
package main

import (
	"fmt"
	"os"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(args []string) error {
	switch {
	case len(args) == 3 && args[0] == "informer":
		return inform(args[1], args[2])
	case len(args) == 1 && args[0] == "kubelet":
		return serveKubelet()
	}
	return fmt.Errorf("usage: go-client informer KUBECONFIG NAMESPACE | kubelet")
}
