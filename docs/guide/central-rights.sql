-- Who may do what in the schema reticle: each box writes rows of its own, everybody reads all.
--
-- Run by the role that owns the schema, once it is there, and again after each update of Reticle
-- that added tables (it can be run any number of times):
--
--     psql -d lab -v ON_ERROR_STOP=1 -f central-rights.sql
--
-- Then, for each box, with a login role of its own:
--
--     CREATE ROLE scope_1 LOGIN PASSWORD '…';
--     SELECT reticle.admit('scope_1', 'lab', 'box-1');   -- box.site and box.name of its configuration
--
-- The owner of the schema is not bound by any of it, so no box may deliver as the owner.

SET client_min_messages = warning;

-- Which role delivers for which box.
CREATE TABLE IF NOT EXISTS reticle.admitted (
    role name NOT NULL,
    site text NOT NULL,
    box  text NOT NULL,
    PRIMARY KEY (role, site, box)
);

-- Gives a role what a box needs to deliver, and no more.
CREATE OR REPLACE FUNCTION reticle.admit(role name, site text, box text) RETURNS void
    LANGUAGE plpgsql
AS $admit$
BEGIN
    EXECUTE format('GRANT TEMPORARY ON DATABASE %I TO %I', current_database(), role);
    EXECUTE format('GRANT USAGE ON SCHEMA reticle TO %I', role);
    EXECUTE format('GRANT SELECT ON ALL TABLES IN SCHEMA reticle TO %I', role);
    EXECUTE format('GRANT INSERT ON reticle.box, reticle.model TO %I', role);
    EXECUTE format('GRANT INSERT, UPDATE ON reticle.store, reticle.session, reticle.frame,
                        reticle.segmentation, reticle.object TO %I', role);
    -- A result that was computed again has fewer objects than before.
    EXECUTE format('GRANT DELETE ON reticle.object TO %I', role);
    INSERT INTO reticle.admitted VALUES (role, site, box) ON CONFLICT DO NOTHING;
END
$admit$;

-- Policies: reading is free, writing wants an own box. A row without a site follows what it
-- belongs to: a frame its session, a result its frame, an object its result.
DO $policies$
DECLARE
    guarded record;
BEGIN
    FOR guarded IN
        SELECT *
        FROM (VALUES
            ('box', '(site, name) IN (SELECT admitted.site, admitted.box FROM reticle.admitted
                      WHERE role = current_user)'),
            ('store', '(site, box) IN (SELECT admitted.site, admitted.box
                           FROM reticle.admitted WHERE role = current_user)'),
            ('session', '(site, box) IN (SELECT admitted.site, admitted.box
                          FROM reticle.admitted WHERE role = current_user)'),
            ('frame', 'EXISTS (SELECT FROM reticle.session
                               JOIN reticle.admitted USING (site, box)
                               WHERE session.id = frame.session AND role = current_user)'),
            ('segmentation', 'EXISTS (SELECT FROM reticle.frame
                                      JOIN reticle.session ON session.id = frame.session
                                      JOIN reticle.admitted USING (site, box)
                                      WHERE frame.id = segmentation.frame
                                        AND role = current_user)'),
            ('object', 'EXISTS (SELECT FROM reticle.segmentation
                                JOIN reticle.frame ON frame.id = segmentation.frame
                                JOIN reticle.session ON session.id = frame.session
                                JOIN reticle.admitted USING (site, box)
                                WHERE segmentation.pk = object.segmentation
                                  AND role = current_user)')
        ) AS tables (name, own)
    LOOP
        EXECUTE format('ALTER TABLE reticle.%I ENABLE ROW LEVEL SECURITY', guarded.name);
        EXECUTE format('DROP POLICY IF EXISTS read_all ON reticle.%I', guarded.name);
        EXECUTE format('CREATE POLICY read_all ON reticle.%I FOR SELECT USING (true)',
                       guarded.name);
        EXECUTE format('DROP POLICY IF EXISTS insert_own ON reticle.%I', guarded.name);
        EXECUTE format('CREATE POLICY insert_own ON reticle.%I FOR INSERT WITH CHECK (%s)',
                       guarded.name, guarded.own);
        EXECUTE format('DROP POLICY IF EXISTS update_own ON reticle.%I', guarded.name);
        EXECUTE format('CREATE POLICY update_own ON reticle.%I FOR UPDATE USING (%s)',
                       guarded.name, guarded.own);
        EXECUTE format('DROP POLICY IF EXISTS delete_own ON reticle.%I', guarded.name);
        EXECUTE format('CREATE POLICY delete_own ON reticle.%I FOR DELETE USING (%s)',
                       guarded.name, guarded.own);
    END LOOP;
END
$policies$;
