// Command coredns is CoreDNS with the three plugins that the local node needs: the whole of it brings the libraries of
// every cloud.
package main

import (
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/coremain"

	_ "github.com/coredns/coredns/plugin/errors"
	_ "github.com/coredns/coredns/plugin/kubernetes"
	_ "github.com/coredns/coredns/plugin/rewrite"
)

func main() {
	// In the order in which a query passes them.
	dnsserver.Directives = []string{"errors", "rewrite", "kubernetes"}
	coremain.Run()
}
