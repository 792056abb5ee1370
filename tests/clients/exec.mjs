// Runs a command in the pod `box` until it is cut, and shows what the API server's last word is.
// NODE_CLIENT is the folder that the client is installed in.

import { createRequire } from 'node:module';

const { resolve } = createRequire(`${process.env.NODE_CLIENT}/`);
const { Exec, KubeConfig } = await import(resolve('@kubernetes/client-node'));

const config = new KubeConfig();
config.loadFromDefault();
const command = ['tail', '-f', '/etc/hosts'];
await new Exec(config).exec('shop', 'box', 'box', command, process.stdout, process.stderr, null, false, (status) => {
    console.log(status.message);
    process.exit(status.status === 'Success' ? 0 : 1);
});
