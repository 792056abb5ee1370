package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/streaming/pkg/httpstream"
	"k8s.io/streaming/pkg/httpstream/spdy"
)

// pause is the time between two lines of a container.
const pause = 200 * time.Millisecond

// serveKubelet serves the part of a kubelet's API that the API server uses for logs and exec. It prints its port.
func serveKubelet() error {
	certificate, err := selfSigned()
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println("port", listener.Addr().(*net.TCPAddr).Port)
	mux := http.NewServeMux()
	mux.HandleFunc("/containerLogs/", logs)
	mux.HandleFunc("/exec/", exec)
	server := &http.Server{
		Handler:   mux,
		TLSConfig: &tls.Config{Certificates: []tls.Certificate{certificate}, NextProtos: []string{"http/1.1"}},
	}
	return server.ServeTLS(listener, "", "")
}

// logs writes a line now and then, until its client is gone.
func logs(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/plain")
	talk(flushing{w, http.NewResponseController(w)}, r.Context().Done())
}

// exec does the same over SPDY, whatever the command is.
func exec(w http.ResponseWriter, r *http.Request) {
	if _, err := httpstream.Handshake(r, w, []string{"v4.channel.k8s.io"}); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	streams := make(chan httpstream.Stream, 8)
	connection := spdy.NewResponseUpgrader().UpgradeResponse(w, r, func(s httpstream.Stream, _ <-chan struct{}) error {
		streams <- s
		return nil
	})
	if connection == nil {
		return
	}
	defer connection.Close()
	for {
		select {
		case stream := <-streams:
			if stream.Headers().Get(corev1.StreamType) == corev1.StreamTypeStdout {
				go talk(stream, connection.CloseChan())
			}
		case <-connection.CloseChan():
			return
		}
	}
}

// talk writes until nobody listens. A channel that is closed ends it, too.
func talk[T any](w io.Writer, done <-chan T) {
	ticker := time.NewTicker(pause)
	defer ticker.Stop()
	for number := 1; ; number++ {
		if _, err := fmt.Fprintln(w, "line", number); err != nil {
			return
		}
		select {
		case <-ticker.C:
		case <-done:
			return
		}
	}
}

type flushing struct {
	io.Writer
	controller *http.ResponseController
}

func (f flushing) Write(bytes []byte) (int, error) {
	written, err := f.Writer.Write(bytes)
	if err == nil {
		err = f.controller.Flush()
	}
	return written, err
}

// selfSigned makes a certificate that nobody checks.
func selfSigned() (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	template := x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(24 * time.Hour)}
	certificate, err := x509.CreateCertificate(rand.Reader, &template, &template, key.Public(), key)
	return tls.Certificate{Certificate: [][]byte{certificate}, PrivateKey: key}, err
}
