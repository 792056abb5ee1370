package main

import (
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"k8s.io/apimachinery/pkg/util/httpstream"
	"k8s.io/apimachinery/pkg/util/proxy"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/transport"
)

// serve forwards what bears the token in FOLDER/token to the kubeconfig's server, with the kubeconfig's credential and
// the certificate in FOLDER. It prints its port.
func serve(core func(*rest.Config) (http.Handler, error), kubeconfig, folder string) error {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return err
	}
	handler, err := core(config)
	if err != nil {
		return err
	}
	token, err := os.ReadFile(filepath.Join(folder, "token"))
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println("port", listener.Addr().(*net.TCPAddr).Port)
	server := http.Server{Handler: authenticated(strings.TrimSpace(string(token)), handler)}
	return server.ServeTLS(listener, filepath.Join(folder, "tls.crt"), filepath.Join(folder, "tls.key"))
}

// authenticated admits one token, and takes it from the request.
func authenticated(token string, next http.Handler) http.Handler {
	expected := sha256.Sum256([]byte("Bearer " + token))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		given := sha256.Sum256([]byte(r.Header.Get("Authorization")))
		if subtle.ConstantTimeCompare(given[:], expected[:]) != 1 {
			http.Error(w, "unauthorized", http.StatusUnauthorized)
			return
		}
		r.Header.Del("Authorization")
		next.ServeHTTP(w, r)
	})
}

// upgradeAware is the core of `kubectl proxy`, of the API server's own proxies, and of most proxies written in Go.
func upgradeAware(config *rest.Config) (http.Handler, error) {
	location, ordinary, upgrades, err := transports(config)
	if err != nil {
		return nil, err
	}
	wrapped, err := wrapper(config)
	if err != nil {
		return nil, err
	}
	handler := proxy.NewUpgradeAwareHandler(location, ordinary, false, false, failure{})
	handler.UpgradeTransport = proxy.NewUpgradeRequestRoundTripper(upgrades, wrapped)
	handler.UseRequestLocation = true
	handler.UseLocationHost = true
	return handler, nil
}

// wrapper adds the kubeconfig's credential to a request that is written to a connection of its own.
func wrapper(config *rest.Config) (http.RoundTripper, error) {
	settings, err := config.TransportConfig()
	if err != nil {
		return nil, err
	}
	return transport.HTTPWrappersForConfig(settings, proxy.MirrorRequest)
}

// reverseProxy is the standard library's, with impersonation: the kubeconfig's `as` says whom.
func reverseProxy(config *rest.Config) (http.Handler, error) {
	location, ordinary, _, err := transports(config)
	if err != nil {
		return nil, err
	}
	old := rest.CopyConfig(config)
	old.NextProtos = []string{"http/1.1"}
	upgrades, err := rest.TransportFor(old)
	if err != nil {
		return nil, err
	}
	return &httputil.ReverseProxy{
		Rewrite:       func(r *httputil.ProxyRequest) { r.SetURL(location) },
		Transport:     either{ordinary: ordinary, upgrades: upgrades},
		FlushInterval: -1,
		ErrorLog:      log.New(os.Stderr, "", 0),
	}, nil
}

// transports returns the server's URL, what sends ordinary requests with the kubeconfig's credential over HTTP/2, and
// what opens a connection for an upgrade.
func transports(config *rest.Config) (*url.URL, http.RoundTripper, *http.Transport, error) {
	location, err := url.Parse(config.Host)
	if err != nil {
		return nil, nil, nil, err
	}
	ordinary, err := rest.TransportFor(config)
	if err != nil {
		return nil, nil, nil, err
	}
	tls, err := rest.TLSConfigFor(config)
	return location, ordinary, &http.Transport{TLSClientConfig: tls}, err
}

// either sends an upgrade over HTTP/1.1.
type either struct{ ordinary, upgrades http.RoundTripper }

func (e either) RoundTrip(r *http.Request) (*http.Response, error) {
	if httpstream.IsUpgradeRequest(r) {
		return e.upgrades.RoundTrip(r)
	}
	return e.ordinary.RoundTrip(r)
}

// failure answers what could not be forwarded.
type failure struct{}

func (failure) Error(w http.ResponseWriter, _ *http.Request, err error) {
	http.Error(w, err.Error(), http.StatusBadGateway)
}
