package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/tools/remotecommand"
)

// How many streams are being opened at a time.
const opening = 16

// target is a pod that echoes what it receives on a port, and a client of it.
type target struct {
	config               *rest.Config
	client               *kubernetes.Clientset
	namespace, pod, port string
}

// kinds are the streams that kubectl opens. Each lasts until it ends and says how; it calls open, once or more often,
// when it has received something.
var kinds = []struct {
	name string
	run  func(at target, open func()) error
}{
	{"watch", watchPod},
	{"logs -f", follow},
	{"exec", exec},
	{"port-forward", forward},
}

// end says when a stream ended, in milliseconds since 1970.
type end struct {
	Kind  string  `json:"kind"`
	At    float64 `json:"at"`
	Error string  `json:"error"`
}

// streams opens so many of each kind and prints a line when all of them are open at the same time. Then it prints the
// end of each, and ends with the last one.
func streams(kubeconfig, namespace, pod, port, count string) error {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return err
	}
	config.QPS = -1
	// As kubectl does, so that a watch can be told why it ends.
	config.AcceptContentTypes, config.ContentType = runtime.ContentTypeJSON, runtime.ContentTypeJSON
	each, err := strconv.Atoi(count)
	if err != nil {
		return err
	}
	all := each * len(kinds)
	opened, ends := make(chan struct{}, all), make(chan end, all)
	turn := make(chan struct{}, opening)
	for number := range all {
		kind := kinds[number%len(kinds)]
		at, err := connect(config, namespace, pod, port)
		if err != nil {
			return err
		}
		go func() {
			turn <- struct{}{}
			open := sync.OnceFunc(func() { <-turn; opened <- struct{}{} })
			err := kind.run(at, open)
			ends <- end{kind.name, float64(time.Now().UnixMicro()) / 1000, fmt.Sprint(err)}
		}()
	}
	for range all {
		select {
		case <-opened:
		case end := <-ends:
			return fmt.Errorf("%s ended too early: %s", end.Kind, end.Error)
		}
	}
	fmt.Println("open")
	lines := json.NewEncoder(os.Stdout)
	for range all {
		if err := lines.Encode(<-ends); err != nil {
			return err
		}
	}
	return nil
}

// connect makes a client with a connection of its own, as each kubectl has one. client-go shares connections among
// clients, except those with a dialer.
func connect(config *rest.Config, namespace, pod, port string) (target, error) {
	config = rest.CopyConfig(config)
	config.Dial = (&net.Dialer{}).DialContext
	client, err := kubernetes.NewForConfig(config)
	return target{config, client, namespace, pod, port}, err
}

func watchPod(at target, open func()) error {
	options := metav1.ListOptions{FieldSelector: "metadata.name=" + at.pod}
	events, err := at.client.CoreV1().Pods(at.namespace).Watch(context.Background(), options)
	if err != nil {
		return err
	}
	defer events.Stop()
	for event := range events.ResultChan() {
		if event.Type == watch.Error {
			return apierrors.FromObject(event.Object)
		}
		open()
	}
	return io.EOF
}

func follow(at target, open func()) error {
	lines := int64(1)
	options := corev1.PodLogOptions{Follow: true, TailLines: &lines}
	log, err := at.client.CoreV1().Pods(at.namespace).GetLogs(at.pod, &options).Stream(context.Background())
	if err != nil {
		return err
	}
	defer log.Close()
	_, err = io.Copy(received(open), log)
	return err
}

func exec(at target, open func()) error {
	options := corev1.PodExecOptions{Command: []string{"cat"}, Stdin: true, Stdout: true}
	request := at.request("exec").VersionedParams(&options, scheme.ParameterCodec)
	executor, err := remotecommand.NewWebSocketExecutor(at.config, "GET", request.URL().String())
	if err != nil {
		return err
	}
	stdin, typed := io.Pipe()
	defer stdin.Close()
	go fmt.Fprintln(typed, "echo")
	return executor.StreamWithContext(context.Background(), remotecommand.StreamOptions{
		Stdin:  stdin,
		Stdout: received(open),
	})
}

func forward(at target, open func()) error {
	dialer, err := portforward.NewSPDYOverWebsocketDialerForStreaming(at.request("portforward").URL(), at.config)
	if err != nil {
		return err
	}
	ports, stop, ready := []string{"0:" + at.port}, make(chan struct{}), make(chan struct{})
	forwarder, err := portforward.NewOnAddressesForStreaming(
		dialer, []string{"127.0.0.1"}, ports, stop, ready, io.Discard, io.Discard)
	if err != nil {
		return err
	}
	var failed error
	go func() {
		<-ready
		if failed = echo(forwarder, open); failed != nil {
			close(stop)
		}
	}()
	err = forwarder.ForwardPorts()
	select {
	case <-stop:
		return failed
	default:
		return err
	}
}

// echo opens a forwarded connection, which stays open.
func echo(forwarder *portforward.PortForwarder, open func()) error {
	ports, err := forwarder.GetPorts()
	if err != nil {
		return err
	}
	connection, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", ports[0].Local))
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintln(connection, "echo"); err != nil {
		return err
	}
	if _, err := connection.Read(make([]byte, 1)); err != nil {
		return errors.Join(errors.New("the pod does not answer"), err)
	}
	open()
	return nil
}

func (at target) request(subresource string) *rest.Request {
	core := at.client.CoreV1().RESTClient()
	return core.Post().Resource("pods").Namespace(at.namespace).Name(at.pod).SubResource(subresource)
}

// received is called when something is written to it.
type received func()

func (open received) Write(p []byte) (int, error) {
	open()
	return len(p), nil
}
