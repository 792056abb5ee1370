package main

import (
	"context"
	"fmt"
	"net/http"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
)

// inform prints what an informer sees of the ConfigMaps in a namespace, and each request that it sends. It never
// returns unless it cannot begin.
func inform(kubeconfig, namespace string) error {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return err
	}
	config.Wrap(func(next http.RoundTripper) http.RoundTripper { return sent{next} })
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	factory := informers.NewSharedInformerFactoryWithOptions(client, 0, informers.WithNamespace(namespace))
	informer := factory.Core().V1().ConfigMaps().Informer()
	say := func(event string, object any) {
		if gone, ok := object.(cache.DeletedFinalStateUnknown); ok {
			object = gone.Obj
		}
		if configMap, ok := object.(*corev1.ConfigMap); ok {
			fmt.Println(event, configMap.Name, configMap.Data["n"])
		}
	}
	_, err = informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(object any) { say("added", object) },
		UpdateFunc: func(_, object any) { say("updated", object) },
		DeleteFunc: func(object any) { say("deleted", object) },
	})
	if err != nil {
		return err
	}
	factory.Start(context.Background().Done())
	select {}
}

// sent prints each request: whether it lists or watches, and the status of the answer.
type sent struct{ next http.RoundTripper }

func (s sent) RoundTrip(request *http.Request) (*http.Response, error) {
	query := request.URL.Query()
	what := "list"
	if query.Has("watch") {
		what = "watch"
	}
	response, err := s.next.RoundTrip(request)
	if err != nil {
		fmt.Println("sent", what, "error", err)
	} else {
		fmt.Println("sent", what, response.StatusCode, query.Has("sendInitialEvents"))
	}
	return response, err
}
