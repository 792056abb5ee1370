// What the benchmark of the gateway has in Go: small proxies around the cores that others use, to compare it with, and
// a client that opens many of kubectl's streams.
package main

import (
	"errors"
	"fmt"
	"os"
)

const usage = `usage: peers upgrade-aware|reverse-proxy KUBECONFIG FOLDER
       peers streams KUBECONFIG NAMESPACE POD PORT COUNT`

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(args []string) error {
	switch {
	case len(args) == 3 && args[0] == "upgrade-aware":
		return serve(upgradeAware, args[1], args[2])
	case len(args) == 3 && args[0] == "reverse-proxy":
		return serve(reverseProxy, args[1], args[2])
	case len(args) == 6 && args[0] == "streams":
		return streams(args[1], args[2], args[3], args[4], args[5])
	}
	return errors.New(usage)
}
