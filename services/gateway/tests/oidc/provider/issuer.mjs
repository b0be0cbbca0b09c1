// Runs oidc-provider for test_oidc_provider.py: client credentials in, JWT access tokens out.
// Usage: node issuer.mjs PORT KEYS, where KEYS names the private keys to make, the first of
// each kind signs: "RS256:a,ES256:b".
import { generateKeyPairSync } from 'node:crypto';
import Provider from 'oidc-provider';

const [port, names] = process.argv.slice(2);
const issuer = `http://127.0.0.1:${port}`;

const make = {
  RS256: () => generateKeyPairSync('rsa', { modulusLength: 2048 }),
  ES256: () => generateKeyPairSync('ec', { namedCurve: 'P-256' }),
};
const keys = names.split(',').map((name) => {
  const [alg, kid] = name.split(':');
  return { ...make[alg]().privateKey.export({ format: 'jwk' }), alg, kid, use: 'sig' };
});

const client = (id) => ({
  client_id: id,
  client_secret: 'a-secret-of-the-test',
  grant_types: ['client_credentials'],
  redirect_uris: [],
  response_types: [],
});

const provider = new Provider(issuer, {
  jwks: { keys },
  clients: [client('acme-backend'), client('globex-backend')],
  scopes: ['chat', 'usage:read'],
  features: {
    clientCredentials: { enabled: true },
    devInteractions: { enabled: false },
    resourceIndicators: {
      enabled: true,
      getResourceServerInfo: (ctx, resource) => ({
        scope: 'chat usage:read',
        audience: resource.replace('urn:', ''),
        accessTokenTTL: 600,
        accessTokenFormat: 'jwt',
        jwt: { sign: { alg: ctx.oidc.body.algorithm ?? 'RS256' } },
      }),
    },
  },
  extraParams: ['algorithm'],
  extraTokenClaims: (ctx, token) => ({
    tenant: token.clientId.replace('-backend', ''),
    roles: ['developer'],
  }),
});
provider.listen(Number(port), '127.0.0.1', () => console.log('listening'));
