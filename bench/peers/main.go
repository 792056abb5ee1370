// What the benchmark of the gateway compares it with: small proxies around the cores that others use.
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
	case len(args) == 3 && args[0] == "upgrade-aware":
		return serve(upgradeAware, args[1], args[2])
	case len(args) == 3 && args[0] == "reverse-proxy":
		return serve(reverseProxy, args[1], args[2])
	}
	return fmt.Errorf("usage: peers upgrade-aware|reverse-proxy KUBECONFIG FOLDER")
}
