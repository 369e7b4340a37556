import { svelte } from '@sveltejs/vite-plugin-svelte';
import { defineConfig } from 'vite';

// `npm run dev` shows the page with hot reload against a daemon on its usual port.
const daemon = 'http://127.0.0.1:8080';

export default defineConfig({
  plugins: [svelte()],
  build: { target: 'es2022', assetsInlineLimit: 0, modulePreload: { polyfill: false } },
  server: {
    proxy: {
      '/api': { target: daemon, ws: true, changeOrigin: true, rewriteWsOrigin: true },
      '/streams': { target: daemon, changeOrigin: true },
    },
  },
});
