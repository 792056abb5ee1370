// Uses ConfigMaps in `default` and watches them until the watch is cut.  client.mjs NAME
// NODE_CLIENT is the folder that the client is installed in.

import { createRequire } from 'node:module';

const { resolve } = createRequire(`${process.env.NODE_CLIENT}/`);
const { CoreV1Api, KubeConfig, Watch } = await import(resolve('@kubernetes/client-node'));

const namespace = 'default';
const name = process.argv[2];
const config = new KubeConfig();
config.loadFromDefault();
const api = config.makeApiClient(CoreV1Api);

console.log('pods', (await api.listPodForAllNamespaces()).items.length);
await api.createNamespacedConfigMap({ namespace, body: { metadata: { name }, data: { a: '1' } } });
console.log('read', (await api.readNamespacedConfigMap({ namespace, name })).data.a);
const { items } = await api.listNamespacedConfigMap({ namespace });
console.log(items.some((item) => item.metadata.name === name) ? 'listed' : 'not listed');
await api.deleteNamespacedConfigMap({ namespace, name });

await new Promise((done) => {
    new Watch(config).watch(
        `/api/v1/namespaces/${namespace}/configmaps`,
        {},
        (type, object) => {
            if (type === 'ERROR') console.log('cut', object.code, object.message);
            else console.log('seen', object.metadata.name);
        },
        done,
    );
});
try {
    await api.listNamespacedConfigMap({ namespace });
} catch (error) {
    // It drops the body of a 401.
    console.log('refused', error.code, error.headers.warning);
}
